"""Server selection, output formats and exit statuses of commands that call a server."""

import inspect
import io
import json
import re
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

import cli.output
import enginehouse_client
from cli.errors import CommandError
from cli.output import Output, clock, first_line, fit_widths
from cli.remote import exit_statuses
from cli.remote.command import server_url
from enginehouse_client import EnginehouseError
from enginehouse_client.errors import error_from_status
from testing.repository import REPOSITORY


def test_the_server_is_the_named_one_or_that_of_the_data_folder(tmp_path: Path) -> None:
    assert server_url(None, tmp_path) == "http://127.0.0.1:5000"
    (tmp_path / "state.json").write_text(json.dumps({"api": "http://127.0.0.1:7001", "redis": "redis://x"}))
    assert server_url(None, tmp_path) == "http://127.0.0.1:7001"
    assert server_url("https://server.example", tmp_path) == "https://server.example"
    with pytest.raises(CommandError, match="must begin with http"):
        server_url("server.example", tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "no JSON"])
def test_an_unreadable_state_file_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(CommandError, match="select the server with --url"):
        server_url(None, tmp_path)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 1), (401, 1), (403, 1), (404, 4), (409, 1), (413, 1), (422, 1), (429, 5), (500, 5), (502, 5), (503, 5), (504, 5)],
)
def test_error_statuses_map_to_exit_statuses(status: int, code: int) -> None:
    error = error_from_status(status, {"error": {"code": "x", "message": "no"}})
    assert isinstance(error, EnginehouseError)
    assert exit_statuses.status_of(error) == code


def test_every_exit_status_is_documented() -> None:
    page = (REPOSITORY / "docs" / "command.md").read_text()
    statuses = {value for name, value in vars(exit_statuses).items() if name.isupper() and isinstance(value, int)}
    assert len(statuses) == 7
    assert not [status for status in statuses if f"| {status} |" not in page]
    errors = [kind for kind in vars(enginehouse_client).values() if inspect.isclass(kind) and issubclass(kind, EnginehouseError)]
    assert len(errors) > 10


def test_pipe_output_is_one_line_per_record_below_the_names_of_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    class Thing:
        raw = {"a": "x\ty", "b": None}  # noqa: RUF012

    out = Output(as_json=False)
    out.print_list(("a", "b", "c"), [Thing()], lambda thing: (thing.raw["a"], thing.raw["b"], "one\r\ntwo"))
    out.print_record(Thing(), [("a", "x\ty"), ("b", None), ("c", {"d": 1, "e": None}), ("f", ["g", "h"])])
    assert capsys.readouterr().out == "a\tb\tc\nx y\t\tone two\na\tx y\nc\td=1\nf\tg, h\n"
    out = Output(as_json=True)
    out.print_list(("a",), [Thing()], lambda thing: ())
    out.print_record(Thing(), [])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [[Thing.raw], Thing.raw]


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> io.StringIO:
    """Make standard output a terminal of this width; returns what it displays."""
    shown = io.StringIO()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(cli.output, "_console", lambda: Console(file=shown, width=columns, color_system=None))
    return shown


@pytest.mark.parametrize("columns", [200, 80, 40, 20])
def test_a_table_never_cuts_an_id(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    first, second = f"key_{'0' * 26}", f"job_{'1' * 26}"
    shown = on_terminal(monkeypatch, columns)
    row = (first, "a name that is rather long", "an owner that is rather long", second, "2026-01-01 00:00:00", "a reason " * 9)
    Output(as_json=False).print_list(("key", "name", "owner", "job", "created", "reason"), [None], lambda _: row)
    header, line, *_ = shown.getvalue().splitlines()
    assert first in line
    assert second in line
    assert header.split()[0] == "key"
    assert max(map(len, shown.getvalue().splitlines())) <= max(columns, len(first) + len(second) + 2)


def test_a_table_never_cuts_the_name_in_its_first_column(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_terminal(monkeypatch, 60)
    name = "a-model-whose-name-is-rather-long"
    Output(as_json=False).print_list(
        ("model", "state", "engine", "reason"), [None], lambda _: (name, "x" * 20, "y" * 20, "z" * 20)
    )
    assert name in shown.getvalue()


def test_a_record_wraps_long_values_and_keeps_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    job, text = f"job_{'0' * 26}", "word " * 60
    shown = on_terminal(monkeypatch, 80)
    Output(as_json=False).print_record(None, [("job", job), ("text", text)])
    lines = shown.getvalue().splitlines()
    assert job in lines[0]
    assert shown.getvalue().count("word") == 60
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("widths", "whole", "available", "fitted"),
    [
        ([30, 8, 60], {0: 30}, 110, [30, 8, 60]),
        ([30, 8, 60], {0: 30}, 80, [30, 8, 38]),
        ([30, 20, 24], {0: 30}, 70, [30, 18, 18]),
        ([30, 4, 8, 19], {0: 30}, 48, [30, 4, 8, None]),
        ([30, 60], {0: 30}, 20, [30, None]),
        ([5, 200], {1: 30}, 80, [5, 73]),
    ],
)
def test_fit_widths(widths: list[int], whole: dict[int, int], available: int, fitted: list[int | None]) -> None:
    assert fit_widths(widths, whole, available) == fitted


def test_clock_omits_the_date_of_today_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", clock(now))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d", clock(time.time()))
    assert clock(now - 2 * 86400).startswith(f"{datetime.fromtimestamp(now - 2 * 86400).astimezone():%Y-%m-%d} ")


def test_clock_and_first_line() -> None:
    assert clock(None) == ""
    assert clock(0).startswith(("1970-01-01", "1969-12-31"))
    assert first_line("  a\n b ") == "a b"
    assert first_line("x" * 100) == "x" * 59 + "…"
