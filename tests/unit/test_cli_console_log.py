"""The combined log on a terminal, in a file and with a closed pipe."""

import io
import os

from cli.local.console_log import ConsoleLog


def test_lines_have_an_aligned_process_prefix() -> None:
    out = io.StringIO()
    log = ConsoleLog(out)
    for name in ("io", "chroma"):
        log.announce(name)
    log.line("io", "one")
    log.line("chroma", "two")
    log.flush()
    assert out.getvalue() == "io     | one\nchroma | two\n"


def test_a_file_gets_each_status_change_once() -> None:
    out = io.StringIO()
    log = ConsoleLog(out)
    for text in ("waiting for: a", "waiting for: a", "waiting for: b", ""):
        log.status(text)
    log.flush()
    assert out.getvalue() == "waiting for: a\nwaiting for: b\n"


def test_a_terminal_keeps_the_status_line_at_the_bottom() -> None:
    main, terminal = os.openpty()
    with open(terminal, "w") as stream:
        log = ConsoleLog(stream)
        log.announce("io")
        log.status("waiting for: a")
        log.line("io", "text")
        log.status("")
        written = ""
        while not written.endswith("\r\x1b[K"):  # a terminal hands out what was written in pieces
            written += os.read(main, 4096).decode()
    os.close(main)
    assert written.count("\n") == 1
    assert written.index("text") < written.rindex("waiting for: a")


def test_a_closed_stream_is_not_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = ConsoleLog(open(writer, "w"))  # noqa: SIM115
    log.say("nobody reads this")
    log.say("nor this")
