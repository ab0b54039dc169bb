"""Reading small files in sandboxed children: forks of a process that has imported the readers, and a new Python process for each.

Both read the same files in turn. The CPU time is that of all processes that have to do with it. Run:
``.venv/bin/python -m benchmarks.small_files``.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import psutil
from fpdf import FPDF

from benchmarks.figures import figure, percentile
from shared.documents.media_types import HTML, PDF, TEXT, MediaType
from workers.cpu.parsing.parser import Limits, read_pages
from workers.cpu.sandbox import fork_server


def small_pdf() -> bytes:
    document = FPDF()
    document.add_page()
    document.set_font("helvetica", size=12)
    document.cell(text="A small PDF.")
    return bytes(document.output())


LIMITS = Limits(seconds=60, memory_bytes=1 << 30, max_pages=100, max_page_characters=1_000_000)
FILES: dict[MediaType, bytes] = {
    TEXT: b"A small text.",
    HTML: b"<html><body><p>A small page.</p></body></html>",
    PDF: small_pdf(),
}
FORKED, STARTED = "forked", "started"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50, help="files of each kind and way")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for media_type, content in FILES.items():
            path = Path(folder) / "file"
            path.write_bytes(content)
            measure(path, media_type, options.files)


def measure(path: Path, media_type: MediaType, files: int) -> None:
    """Read a file many times, in both ways in turn."""
    seconds: dict[str, list[float]] = {FORKED: [], STARTED: []}
    cpu = dict.fromkeys(seconds, 0.0)
    ways: dict[str, Callable[[], None]] = {
        FORKED: lambda: read(path, media_type),
        STARTED: lambda: read_started(path, media_type),
    }
    for turn in range(files + 1):
        for way, read_file in ways.items():
            start, used = time.perf_counter(), cpu_seconds()
            read_file()
            if turn:  # the first one starts the fork server
                seconds[way].append(time.perf_counter() - start)
                cpu[way] += cpu_seconds() - used
    for way in ways:
        figure("small_files.p50", 1000 * percentile(seconds[way], 50), "ms", media_type=media_type, way=way, files=files)
        figure("small_files.cpu", 1000 * cpu[way] / files, "ms per file", media_type=media_type, way=way, files=files)


def read(path: Path, media_type: MediaType) -> None:
    read_pages(path, media_type, LIMITS, lambda page, total: None)


def read_started(path: Path, media_type: MediaType) -> None:
    with mock.patch.object(fork_server, "MODULES", ()):
        read(path, media_type)


def cpu_seconds() -> float:
    """CPU time of this process, of the fork server, and of the children of both that have ended."""
    used = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        used += usage.ru_utime + usage.ru_stime
    for server in psutil.Process().children():
        times = server.cpu_times()
        used += times.user + times.system + times.children_user + times.children_system
    return used


if __name__ == "__main__":
    main()
