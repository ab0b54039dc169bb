"""Command lines and environments of processes; help and lists of the command."""

import errno
import io
import json
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click.testing
import pytest
import typer
from typer.testing import CliRunner

from cli.errors import CommandError, os_error_message
from cli.local.data_folder_lock import data_folder_locked
from cli.local.prepare import prepare_models
from cli.local.process_commands import api_command, environment_of, served_model, worker_command
from cli.local.running_stack import stop_stack, with_stack_models
from cli.local.settings_report import describe_settings
from cli.main import app
from cli.output import Output, duration_text, size_text
from cli.remote.jobs import read_arguments
from cli.remote.webhooks import WebhookKind
from shared.settings import Settings
from shared.settings_sources import from_environment
from shared.urls import without_login
from shared.webhooks.endpoints import Kind
from testing.repository import REPOSITORY

MODELS = [
    {"name": "small", "url": "echo:0", "engine": "echo", "max_in_flight": 7, "default": True},
    {"name": "large", "url": "echo:0", "engine": "echo", "max_in_flight": 3},
    {"name": "vectors", "url": "package:x", "task": "embed"},
]


@pytest.fixture
def models_file(tmp_path: Path) -> Path:
    file = tmp_path / "models.json"
    file.write_text(json.dumps(MODELS))
    return file


def after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_a_gpu_worker_gets_its_number(models_file: Path) -> None:
    assert after(worker_command("gpu", Settings(models_file=models_file), number=2), "--number") == "2"
    assert worker_command("gpu", Settings(models_file=models_file / "none", worker_empty=True))


def test_the_api_command_has_threads_and_address() -> None:
    command = api_command(Settings(host="::1", port=8080, api_workers=3, api_threads=40))
    assert (after(command, "--bind"), after(command, "--workers"), after(command, "--threads")) == ("[::1]:8080", "3", "40")


@pytest.mark.parametrize(("lease", "timeout"), [(4, "10"), (12, "12"), (45, "30")])
def test_a_frozen_process_of_the_api_is_killed_after_the_time_of_a_lease(lease: int, timeout: str) -> None:
    """But not before it has missed several signs of life."""
    assert after(api_command(Settings(lease_seconds=lease, renew_seconds=1)), "--timeout") == timeout


@pytest.mark.parametrize(("name", "why"), [("huge", "no model 'huge'"), ("vectors", "cannot generate text")])
def test_a_model_that_cannot_generate_is_rejected(models_file: Path, name: str, why: str) -> None:
    with pytest.raises(CommandError, match=why):
        served_model(Settings(models_file=models_file, worker_model=name))


def test_settings_survive_the_environment() -> None:
    settings = Settings(port=8081, worker_model="large", drain_seconds=3.5, allow_unsafe_redis=True)
    given = {name: value for name, value in environment_of(settings).items() if name.startswith(("ENGINEHOUSE_", "REDIS_URL"))}
    assert from_environment(given) == settings


@pytest.mark.parametrize("url", ["redis://:secret@host:6379/0", "redis://user:secret@host:6379/0", "redis://host:6379/0"])
def test_without_login(url: str) -> None:
    assert without_login(url) == "redis://host:6379/0"


def _help_pages(root: Any) -> list[tuple[str, ...]]:
    pages: list[tuple[str, ...]] = []

    def visit(group: Any, path: tuple[str, ...]) -> None:
        for name, item in group.commands.items():
            pages.append((*path, name))
            if hasattr(item, "commands"):
                visit(item, (*path, name))

    visit(root, ())
    return pages


def test_every_option_is_described_and_flags_take_no_value() -> None:
    # Typer's own runner builds all commands again for each page.
    root: Any = typer.main.get_command(app)
    for path in _help_pages(root):
        command = root
        for name in path:
            command = command.commands[name]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, (path, parameter.name)
        shown = click.testing.CliRunner().invoke(root, [*path, "-h"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, path
        assert "<bool>" not in shown.output, path
        assert " range>" not in shown.output, path


def test_unknown_kinds_are_rejected_before_a_server_is_asked() -> None:
    for words in (["jobs", "--kind", "generation"], ["webhooks", "create", "http://a/", "--kind", "generation"]):
        rejected = CliRunner().invoke(app, [*words, "--url", "http://127.0.0.1:1"])
        assert rejected.exit_code == 2, rejected.output
        assert "'generation' is not one of" in rejected.output
        assert "Value error" not in rejected.output


def test_the_help_of_a_port_has_its_range() -> None:
    shown = CliRunner().invoke(app, ["up", "-h"], env={"COLUMNS": "200"})
    assert "<int> [1<=x<=65535]" in shown.output


def test_the_settings_of_a_data_folder_are_shown(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["config", "--data", str(tmp_path), "--json"], env={"ENGINEHOUSE_DATA": "/elsewhere"})
    rows = {row["setting"]: row for row in json.loads(shown.stdout)}
    assert rows["ENGINEHOUSE_DATA"] == {"setting": "ENGINEHOUSE_DATA", "value": str(tmp_path), "source": "--data"}


def test_models_are_those_of_the_running_stack_unless_a_file_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path)
    monkeypatch.delenv("ENGINEHOUSE_MODELS_FILE", raising=False)
    assert with_stack_models(settings) == settings, "no stack runs"
    own = describe_settings(replace(settings, models_file=tmp_path / "models.json", engine="echo"), {})
    (tmp_path / "state.json").write_text(json.dumps({"settings": own}))
    found = with_stack_models(settings)
    assert (found.models_file, found.engine) == (tmp_path / "models.json", "echo")
    monkeypatch.setenv("ENGINEHOUSE_MODELS_FILE", "elsewhere.json")
    assert with_stack_models(settings) == settings


def test_stop_waits_for_a_stack_whose_guardian_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    with ExitStack() as lock:
        lock.enter_context(data_folder_locked(tmp_path, gone.pid))
        stop_stack(tmp_path, wait=lambda _: lock.close())
    with pytest.raises(CommandError, match="No Enginehouse is running"):
        stop_stack(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_output_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "cli.main", "config", "--all", "--data", str(tmp_path)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("\nOutput cannot be written: No space left on device.\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "copy.tar"), "copy.tar cannot be written: No space left on device."),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"), "a.txt: No such file or directory"),
        (OSError(errno.EADDRINUSE, "Address already in use"), "[Errno 98] Address already in use"),
    ],
)
def test_an_error_of_the_system_names_its_file_and_the_reason(error: OSError, message: str) -> None:
    assert os_error_message(error) == message


def test_an_empty_list_says_so_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).print_list(("job",), [], lambda record: record)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "There are none.\n")
    Output(as_json=True).print_list(("job",), [], lambda record: record)
    assert capsys.readouterr().out == "[]\n"


def test_a_list_that_is_cut_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for limit, note in ((2, "There are more than these 2: --limit shows more.\n"), (3, "")):
        Output(as_json=False).print_list(("number",), iter("123"), lambda number: number, limit=limit)
        assert capsys.readouterr() == ("\n".join(["number", *"123"[:limit]]) + "\n", note)
        Output(as_json=True).print_list(("number",), iter("123"), lambda number: number, to_json=lambda _: {}, limit=limit)
        assert capsys.readouterr() == (json.dumps([{}] * limit) + "\n", note)


def test_times_and_sizes_have_units() -> None:
    texts = {0: "0 s", 119.4: "119 s", 120: "2 min", 7199: "120 min", 7200: "2 h", 172_800: "2 d"}
    assert {seconds: duration_text(seconds) for seconds in texts} == texts
    sizes = {0: "0 bytes", 1: "1 byte", 1023: "1,023 bytes", 1024: "1 KiB", 5 * 2**20: "5 MiB", 3 * 2**29: "1.5 GiB"}
    assert {number: size_text(number) for number in sizes} == sizes


def test_models_prepare_says_when_there_is_nothing_to_prepare(tmp_path: Path, models_file: Path) -> None:
    models_file.write_text(json.dumps(MODELS[:2]))
    with pytest.raises(CommandError, match="has no model that needs no download: name the models to prepare"):
        prepare_models(Settings(data_dir=tmp_path, models_file=models_file), [])


def test_input_without_a_line_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("", "\n \n", "job\tkind\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert list(read_arguments(["-"])) == []
        assert capsys.readouterr().err == "Standard input is empty, so there is nothing to do.\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("job\tkind\njob_1\tgenerate\njob_2\n"))
    assert list(read_arguments(["job_0", "-"])) == ["job_0", "job_1", "job_2"]
    assert capsys.readouterr().err == ""


def test_help_and_version_have_their_usual_options() -> None:
    def output(*arguments: str) -> str:
        return CliRunner().invoke(app, list(arguments)).stdout

    assert output("--version") == output("version") != ""
    for command in ((), ("deliveries",), ("job",), ("job", "wait")):
        assert output(*command, "-h") == output(*command, "--help") != ""
    listed = output("models", "list", "--help")
    for state in ("ready", "warming", "loading", "draining", "failed", "unloaded", "not_served"):
        assert re.search(rf"^ {state} +\w", listed, re.MULTILINE), state


def test_webhooks_of_the_command_take_every_kind_of_the_server() -> None:
    # Importing the server's list would double the time that a command takes to start.
    assert [kind.value for kind in WebhookKind] == list(get_args(Kind))
