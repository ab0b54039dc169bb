"""Settings come from the environment, from files of secrets, and from a file of settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cli.admin.configuration import show_settings
from cli.local.data_folder_lock import data_folder_locked
from cli.local.process_commands import environment_of
from cli.local.settings_report import describe_settings, find_sources
from cli.output import Output
from shared.errors import SettingsError
from shared.settings_sources import from_environment, is_given

TOKEN = "a-token-for-scrapes"


def test_the_environment_precedes_the_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text('# ports\n\nENGINEHOUSE_PORT=7000\nexport ENGINEHOUSE_HOST="0.0.0.0"\n')
    settings = from_environment({"ENGINEHOUSE_CONFIG": str(file), "ENGINEHOUSE_PORT": "7001"})
    assert (settings.port, settings.host) == (7001, "0.0.0.0")


def test_secrets_are_read_from_files_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    given = {"ENGINEHOUSE_METRICS_TOKEN_FILE": str(secret), "REDIS_URL": "redis://me:hush@host:1/0"}
    settings = from_environment(given)
    assert is_given(given, "ENGINEHOUSE_METRICS_TOKEN")
    assert not is_given(given, "ENGINEHOUSE_CHROMA_URL")
    assert settings.metrics_token == TOKEN
    assert TOKEN not in repr(settings)
    show_settings(given, every=False, out=Output(as_json=True))
    shown = capsys.readouterr().out
    assert "hush" not in shown
    assert TOKEN not in shown
    assert {row["setting"]: row["source"] for row in json.loads(shown)} == {
        "REDIS_URL": "environment",
        "ENGINEHOUSE_METRICS_TOKEN": f"file {secret}",
    }
    # Children get the value, and would refuse a file that was removed.
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    child = environment_of(settings)
    assert child["ENGINEHOUSE_METRICS_TOKEN"] == TOKEN
    assert "ENGINEHOUSE_METRICS_TOKEN_FILE" not in child


def test_the_settings_of_a_running_stack_precede_those_of_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shell of an operator is rarely the one that started the stack."""
    options = {"--data": ("data_dir", tmp_path), "--port": ("port", None)}
    started = {"ENGINEHOUSE_METRICS_TOKEN": TOKEN, "ENGINEHOUSE_DRAIN_SECONDS": "7"}
    settings = replace(from_environment(started, data_dir=tmp_path), redis_url="redis://:hush@127.0.0.1:7/0")
    rows = describe_settings(settings, find_sources(started, options))

    def shown(*, every: bool = False) -> tuple[dict[str, tuple[str, str]], str]:
        show_settings({"ENGINEHOUSE_PORT": "7000"}, every=every, out=Output(as_json=True), options=options)
        printed = capsys.readouterr()
        return {row["setting"]: (row["value"], row["source"]) for row in json.loads(printed.out)}, printed.err

    with data_folder_locked(tmp_path, guardian=4711):
        found, note = shown()
        assert (found["ENGINEHOUSE_PORT"], "does not report its own" in note) == (("7000", "environment"), True)
        (tmp_path / "state.json").write_text(json.dumps({"settings": rows}))
        found, note = shown()
        assert found == {
            "ENGINEHOUSE_DATA": (str(tmp_path), "--data"),
            "REDIS_URL": ("redis://127.0.0.1:7/0", "enginehouse up"),
            "ENGINEHOUSE_METRICS_TOKEN": ("(hidden)", "environment"),
            "ENGINEHOUSE_DRAIN_SECONDS": ("7.0", "environment"),
        }
        assert "process 4711" in note
        assert shown(every=True)[0]["ENGINEHOUSE_PORT"] == ("5000", "default")
    found, note = shown()
    assert (found["ENGINEHOUSE_PORT"], "no Enginehouse runs" in note) == (("7000", "environment"), True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ENGINEHOUSE_PROT=1", "ENGINEHOUSE_PROT is not a setting"),
        ("ENGINEHOUSE_PORT", "line 1 is not NAME=VALUE"),
        ("ENGINEHOUSE_PORT=x", "ENGINEHOUSE_PORT='x': must be an integer (file"),
        ("ENGINEHOUSE_CONFIG=other", "cannot name another one"),
        ("ENGINEHOUSE_METRICS_TOKEN=short", "at least 16"),
        ("ENGINEHOUSE_METRICS_TOKEN_FILE=/nowhere", "/nowhere cannot be read: No such file"),
    ],
)
def test_bad_files_are_rejected_with_their_line_or_name(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "settings"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        from_environment({"ENGINEHOUSE_CONFIG": str(file)})
    assert problem in "\n".join(caught.value.problems)


def test_missing_and_empty_files_are_rejected(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for given in ({"ENGINEHOUSE_CONFIG": "/nowhere"}, {"REDIS_URL_FILE": "/nowhere"}, {"REDIS_URL_FILE": str(empty)}):
        with pytest.raises(SettingsError):
            from_environment(given)
    with pytest.raises(SettingsError) as caught:
        from_environment({"ENGINEHOUSE_NO_SUCH": "1", "REDIS_URL_FILE": str(empty)})
    assert len(caught.value.problems) == 2, "all problems are reported at once"
