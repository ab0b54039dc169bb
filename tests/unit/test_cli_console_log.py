"""The combined log on a terminal, in a file and with a closed pipe."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from cli.local.console_log import MAX_WAITING, ConsoleLog


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


def test_lines_that_nobody_reads_are_dropped_and_counted(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    log = ConsoleLog(open(writer, "w"), file=tmp_path / "log")  # noqa: SIM115
    log.announce("io")
    for number in range(3 * MAX_WAITING):  # none of these calls may block
        log.line("io", f"line {number} with some more text")
    shown, dropped = 0, 0
    with open(reader) as stream:
        for line in stream:
            if found := re.match(r"(\d+) lines were not shown", line):
                dropped = int(found[1])
                break
            shown += 1
    assert dropped > 0
    assert shown + dropped == 3 * MAX_WAITING
    assert len((tmp_path / "log").read_text().splitlines()) == 3 * MAX_WAITING, "the file has them all"


def test_a_process_ends_while_nobody_reads_its_output() -> None:
    code = (
        "from cli.local.console_log import ConsoleLog\n"
        "log = ConsoleLog()\n"
        "for _ in range(2_000): log.line('io', 'x' * 100)\n"
        "log.flush(0.1)\n"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writer)
    os.close(writer)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(reader)
