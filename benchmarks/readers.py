"""Readers compared: how many of the samples in ``testing/reading_samples`` each library reads in full, in what time and memory.

A sample counts as read if all words that it must have are there, apart from each other, each as often as it should be, and
nothing that must not be there. Layout, labels and punctuation do not count, so that libraries that write Markdown are not at a
disadvantage. Each library runs in a process of its own, without the sandbox, and reads only the formats that it knows.

Run: ``.venv/bin/python -m benchmarks.readers``. Libraries that are not installed are left out; install them into a folder with
``pip install --target FOLDER kreuzberg markitdown[docx,pptx,xlsx] docx2python mammoth odfpy striprtf`` and add ``--libraries FOLDER``.
``--speed`` measures our readers alone, with large files of each Office format.
"""

import argparse
import importlib
import importlib.util
import io
import multiprocessing
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import figure
from shared.documents.media_types import detect_media_type
from testing.reading_samples import Sample, samples
from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE, import_reader, open_reader

_ENDS_PROCESSES = ("far.xlsx",)  # more than some libraries can hold in memory
_MEMORY_BYTES = 1 << 30
_WORD = re.compile(r"\w+")
Read = Callable[[Path, str], str]


def ours(path: Path, name: str) -> str:
    reader = open_reader(READERS_BY_MEDIA_TYPE[detect_media_type(path, name)][0], str(path), "")
    return "\n".join(reader.read_page(number).text for number in range(1, reader.pages + 1))


def with_kreuzberg(path: Path, name: str) -> str:
    import kreuzberg

    return str(kreuzberg.extract_file_sync(str(path)).content)


def with_markitdown(path: Path, name: str) -> str:
    from markitdown import MarkItDown

    return str(MarkItDown(enable_plugins=False).convert(str(path)).text_content)


def with_docx2python(path: Path, name: str) -> str:
    from docx2python import docx2python

    with docx2python(path) as document:
        return str(document.text)


def with_mammoth(path: Path, name: str) -> str:
    import mammoth

    with path.open("rb") as stream:
        return str(mammoth.extract_raw_text(stream).value)


def with_python_docx(path: Path, name: str) -> str:
    import docx

    document = docx.Document(str(path))
    rows = (cell.text for table in document.tables for row in table.rows for cell in row.cells)
    return "\n".join([*(paragraph.text for paragraph in document.paragraphs), *rows])


def with_python_pptx(path: Path, name: str) -> str:
    import pptx

    shapes = (shape for slide in pptx.Presentation(str(path)).slides for shape in slide.shapes)
    return "\n".join(shape.text_frame.text for shape in shapes if shape.has_text_frame)


def with_openpyxl(path: Path, name: str) -> str:
    import openpyxl

    workbook = openpyxl.load_workbook(io.BytesIO(path.read_bytes()), read_only=True, data_only=True)
    rows = (row for sheet in workbook.worksheets for row in sheet.iter_rows(values_only=True))
    return "\n".join(" ".join("" if value is None else str(value) for value in row) for row in rows)


def with_calamine(path: Path, name: str) -> str:
    from python_calamine import CalamineWorkbook

    workbook = CalamineWorkbook.from_filelike(io.BytesIO(path.read_bytes()))
    rows = (row for sheet in workbook.sheet_names for row in workbook.get_sheet_by_name(sheet).to_python())
    return "\n".join(" ".join(map(str, row)) for row in rows)


def with_odfpy(path: Path, name: str) -> str:
    from odf import opendocument, teletype

    return str(teletype.extractText(opendocument.load(str(path)).body))


def with_striprtf(path: Path, name: str) -> str:
    from striprtf.striprtf import rtf_to_text

    text: Any = rtf_to_text(path.read_bytes().decode("cp1252", "replace"), errors="replace")
    return str(text)


def with_beautiful_soup(path: Path, name: str) -> str:
    from bs4 import BeautifulSoup

    return str(BeautifulSoup(path.read_bytes(), "lxml").get_text(" "))


def with_trafilatura(path: Path, name: str) -> str:
    import trafilatura

    return str(trafilatura.extract(path.read_bytes(), favor_recall=True) or "")


def with_oxmsg(path: Path, name: str) -> str:
    from oxmsg import Message

    message = Message.load(str(path))
    return f"{message.subject} {message.sender} {message.body or ''} {message.html_body or ''}"


_WORD_KINDS, _PAGES = ("docx", "docm", "dotx"), ("html",)
_OFFICE = (*_WORD_KINDS, "pptx", "pptm", "ppsx", "xlsx", "xlsm", "xlsb")
# Module, formats and function of each library; ours reads them all.
CANDIDATES: dict[str, tuple[str, tuple[str, ...], Read]] = {
    "this server": ("workers.cpu.readers.registry", (), ours),
    "kreuzberg": ("kreuzberg", (*_OFFICE, "odt", "ods", "odp", "html", "eml", "msg", "rtf", "epub"), with_kreuzberg),
    "markitdown": ("markitdown", (*_OFFICE, "html", "epub", "msg"), with_markitdown),
    "docx2python": ("docx2python", _WORD_KINDS, with_docx2python),
    "mammoth": ("mammoth", _WORD_KINDS, with_mammoth),
    "python-docx": ("docx", _WORD_KINDS, with_python_docx),
    "python-pptx": ("pptx", ("pptx", "pptm", "ppsx"), with_python_pptx),
    "openpyxl": ("openpyxl", ("xlsx", "xlsm"), with_openpyxl),
    "python-calamine": ("python_calamine", ("xlsx", "xlsm", "xlsb", "ods"), with_calamine),
    "odfpy": ("odf", ("odt", "ods", "odp"), with_odfpy),
    "striprtf": ("striprtf", ("rtf",), with_striprtf),
    "beautifulsoup4": ("bs4", _PAGES, with_beautiful_soup),
    "trafilatura": ("trafilatura", _PAGES, with_trafilatura),
    "python-oxmsg": ("oxmsg", ("msg",), with_oxmsg),
}
_KINDS = {
    "docm": "docx",
    "dotx": "docx",
    "pptm": "pptx",
    "ppsx": "pptx",
    "xlsm": "xlsx",
    "xlsb": "xlsx",
    "ods": "odt",
    "odp": "odt",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--libraries", type=Path, nargs="*", default=[], help="folders of libraries to compare with")
    arguments.add_argument("--speed", action="store_true", help="measure the speed of our readers with large files")
    arguments.add_argument("--verbose", action="store_true", help="name the samples that a library does not read")
    options = arguments.parse_args()
    context = multiprocessing.get_context("spawn")
    if options.speed:
        for name, seconds, characters in measure_speed():
            figure("readers.speed", characters / seconds / 1e6, "million characters/s", file=name, seconds=round(seconds, 2))
        return
    folders = [str(folder) for folder in options.libraries]
    for library in CANDIDATES:
        results = context.SimpleQueue()
        child = context.Process(target=run_candidate, args=(library, folders, results))
        child.start()
        child.join()
        if child.exitcode or results.empty():
            figure("readers.missing", 1, "", library=library)
            continue
        read, seconds, import_seconds, megabytes = results.get()
        for kind in dict.fromkeys(kind for kind, _, _ in read):
            passed = [good for found, _, good in read if found == kind]
            figure("readers.read", sum(passed), f"of {len(passed)}", library=library, format=kind)
        good = sum(good for _, _, good in read)
        figure("readers.total", good, f"of {len(read)}", library=library)
        figure("readers.median_milliseconds", statistics.median(seconds) * 1000, "ms", library=library)
        figure("readers.import", import_seconds, "s", library=library, megabytes=megabytes)
        if options.verbose:
            print("  not read:", *(name for _, name, good in read if not good))


def run_candidate(library: str, folders: list[str], results: Any) -> None:
    sys.path += folders
    module, formats, read = CANDIDATES[library]
    if importlib.util.find_spec(module) is None:
        sys.exit(1)
    start = time.perf_counter()
    importlib.import_module(module)
    if read is ours:
        for readers in READERS_BY_MEDIA_TYPE.values():
            import_reader(readers[0])
    import_seconds = time.perf_counter() - start
    found, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for sample in samples():
            if formats and sample.kind not in formats:
                continue
            path = Path(folder, sample.name)
            path.write_bytes(sample.make())
            start = time.perf_counter()
            text = read_apart(read, path, sample.name) if sample.name in _ENDS_PROCESSES else read_text(read, path, sample.name)
            seconds.append(time.perf_counter() - start)
            found.append((_KINDS.get(sample.kind, sample.kind), sample.name, is_read(sample, text)))
    results.put((found, seconds, import_seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))


def read_text(read: Read, path: Path, name: str) -> str:
    try:
        return read(path, name)
    except Exception:  # noqa: BLE001 - a library that fails has not read the file
        return ""


def read_apart(read: Read, path: Path, name: str) -> str:
    """The text, or "" if reading ends the process or takes longer than a minute. The memory is limited as for our readers."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        sender.send(read_text(read, path, name))

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    sender.close()
    try:
        return str(receiver.recv()) if receiver.poll(60) else ""
    except EOFError:
        return ""
    finally:
        child.kill()
        child.join()


def is_read(sample: Sample, text: str) -> bool:
    text = " ".join(text.replace("\N{NON-BREAKING HYPHEN}", "-").split())
    words = _WORD.findall(text)
    joined = f" {' '.join(words)} "
    return (
        all(word in words for piece in sample.must for word in _WORD.findall(piece))
        and not any(piece in text for piece in sample.never)
        and all(joined.count(f" {' '.join(_WORD.findall(piece))} ") == times for piece, times in sample.count.items())
    )


def measure_speed() -> Iterator[tuple[str, float, int]]:
    """File, the best of five times of the processor to read it, and its characters."""
    for name, data in large_files():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(data)
            times = []
            for _ in range(5):
                start = time.process_time()
                text = ours(path, name)
                times.append(time.process_time() - start)
            yield name, min(times), len(text)


def large_files() -> Iterator[tuple[str, bytes]]:
    """Files of the three Office formats, as the libraries that most programs use write them."""
    import docx
    import openpyxl
    import pptx

    sentence = "The boiler of line three is inspected every Monday before the shift begins, and its valves are tightened. "
    target = io.BytesIO()
    document = docx.Document()
    for number in range(3000):
        document.add_paragraph(f"{number}. {sentence * 3}")
    table = document.add_table(rows=200, cols=6)
    for number, cell in enumerate(table._cells):
        cell.text = f"value {number}"
    document.save(target)
    yield "report.docx", target.getvalue()
    target, deck = io.BytesIO(), pptx.Presentation()
    for number in range(200):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Slide {number}"
        slide.placeholders[1].text = "\n".join(sentence for _ in range(8))
    deck.save(target)
    yield "deck.pptx", target.getvalue()
    target, workbook = io.BytesIO(), openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("Stock")
    sheet.append([f"Column {number}" for number in range(10)])
    for number in range(10_000):
        sheet.append([number, number * 0.5, *(f"text {number % 977} of column {column}" for column in range(8))])
    workbook.save(target)
    yield "stock.xlsx", target.getvalue()


if __name__ == "__main__":
    main()
