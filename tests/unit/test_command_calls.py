"""Server selection, output formats and exit statuses of commands that call a server."""

import inspect
import json
from pathlib import Path

import pytest

import enginehouse_client
from cli.errors import CommandError
from cli.remote import exit_statuses
from cli.remote.command import server_url
from cli.remote.output import Output, clock, first_line
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


def test_pipe_output_is_one_line_per_record(capsys: pytest.CaptureFixture[str]) -> None:
    class Thing:
        raw = {"a": "x\ty", "b": None}  # noqa: RUF012

    out = Output(as_json=False)
    out.print_list(("a", "b", "c"), [Thing()], lambda thing: (thing.raw["a"], thing.raw["b"], "one\r\ntwo"))
    out.print_record(Thing(), [("a", "x\ty"), ("b", None), ("c", {"d": 1, "e": None}), ("f", ["g", "h"])])
    assert capsys.readouterr().out == "x y\t\tone two\na\tx y\nc\td=1\nf\tg, h\n"
    out = Output(as_json=True)
    out.print_list(("a",), [Thing()], lambda thing: ())
    out.print_record(Thing(), [])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [[Thing.raw], Thing.raw]


def test_clock_and_first_line() -> None:
    assert clock(None) == ""
    assert clock(0).startswith(("1970-01-01", "1969-12-31"))
    assert first_line("  a\n b ") == "a b"
    assert first_line("x" * 100) == "x" * 59 + "…"
