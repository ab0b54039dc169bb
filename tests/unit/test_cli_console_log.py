"""The one log of many processes, as a terminal, a file and a closed pipe see it."""

import io
import os

from cli.local.console_log import ConsoleLog


def test_every_line_has_the_name_of_its_process_in_one_column() -> None:
    out = io.StringIO()
    log = ConsoleLog(out)
    for name in ("io", "chroma"):
        log.announce(name)
    log.line("io", "one")
    log.line("chroma", "two")
    assert out.getvalue() == "io     | one\nchroma | two\n"


def test_a_file_gets_each_change_of_what_is_awaited_once() -> None:
    out = io.StringIO()
    log = ConsoleLog(out)
    for text in ("waiting for: a", "waiting for: a", "waiting for: b", ""):
        log.status(text)
    assert out.getvalue() == "waiting for: a\nwaiting for: b\n"


def test_a_terminal_rewrites_the_last_line_and_keeps_it_below_the_log() -> None:
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


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = ConsoleLog(open(writer, "w"))  # noqa: SIM115
    log.say("nobody reads this")
    log.say("nor this")
