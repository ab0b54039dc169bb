"""Text that the command prints: no control character of a name or an answer reaches the terminal."""

import io
import json
import sys

import pytest

from cli.errors import CommandError
from cli.local.console_log import ConsoleLog
from cli.output import Output
from cli.safe_text import accept_all_bytes, check_utf8, safe_json, safe_line, safe_text

HOSTILE = "a\x1b[31mb\x07\x9b2J\x7f\u202ec\udce9d\r"


def test_control_characters_are_escaped() -> None:
    assert safe_text(HOSTILE) == r"a\x1b[31mb\x07\x9b2J\x7f\u202ec\xe9d\x0d"
    assert safe_text("one\r\ntwo\tthree\n") == "one\r\ntwo\tthree\n"
    assert safe_line("one\r\ntwo\tthree\u2028four") == "one two three four"
    assert safe_text("Größe 日本語 \u200f👩\u200d👧") == "Größe 日本語 \u200f👩\u200d👧"


def test_json_stays_the_same_json() -> None:
    text = safe_json(json.dumps({HOSTILE: [HOSTILE, "日本"]}, ensure_ascii=False))
    assert json.loads(text) == {HOSTILE: [HOSTILE, "日本"]}
    assert "日本" in text
    assert not any(character in text for character in "\x1b\x07\x9b\x7f\u202e\udce9")


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_output_contains_control_characters(monkeypatch: pytest.MonkeyPatch, as_json: bool, terminal: bool) -> None:
    shown, notes = io.StringIO(), io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", notes)
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    out = Output(as_json=as_json)
    record = type("Record", (), {"raw": {"name": HOSTILE}})()
    out.print_list(("name", "list"), [record], lambda _: (HOSTILE, [HOSTILE]))
    out.print_record(record, [("name", HOSTILE), ("fields", {"name": HOSTILE})])
    out.print_line(HOSTILE, "")
    out.print_note(HOSTILE)
    if terminal:
        out.print_text(HOSTILE)
    printed = shown.getvalue() + notes.getvalue()
    assert "31m" in printed
    assert not any(character in printed for character in "\x1b\x07\x9b\x7f\u202e\udce9")


def test_an_answer_in_a_pipe_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
    Output(as_json=False).print_text("a\x1b[31m\r", end="")
    assert shown.getvalue() == "a\x1b[31m\r"


def test_a_log_line_keeps_only_colours() -> None:
    log = ConsoleLog(file := io.StringIO())
    log.line("api", "\x1b[31mred\x1b[0m \x1b]0;title\x07")
    log.flush()
    assert file.getvalue() == "api | red \\x1b]0;title\\x07\n"


def test_text_that_is_not_utf8_is_an_error_that_shows_it() -> None:
    assert check_utf8("Größe", "The prompt") == "Größe"
    with pytest.raises(CommandError, match=r"^The prompt is not UTF-8: caf\\xe9$"):
        check_utf8("caf\udce9", "The prompt")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_the_standard_streams_accept_all_bytes(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    given = io.TextIOWrapper(io.BytesIO(b"caf\xe9 \xc3\xa9\n"), encoding=encoding)
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    for name, stream in (("stdin", given), ("stdout", shown), ("stderr", shown)):
        monkeypatch.setattr(sys, name, stream)
    accept_all_bytes()
    assert sys.stdin.read() == ("caf\udce9 é\n" if encoding != "latin-1" else "café Ã©\n")
    sys.stdout.write("日本 \udce9\n")
    sys.stdout.flush()
    assert shown.buffer.getvalue().endswith(b"\\udce9\n")  # type: ignore[attr-defined]
