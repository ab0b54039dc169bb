"""Layout of PDF pages, measured on made pages whose text is known: cells in the right row, lines in the right order, headers removed.

Of each kind of page, random ones are made with fpdf2: tables with and without lines, two columns whose lines alternate in the file, and
pages of text with lists, which must stay as they are. A table counts by its rows: a row is right if it is one line with all cells in
order. Columns count by their pairs of neighbouring lines. Run: ``.venv/bin/python -m benchmarks.page_layout``. ``--files FOLDER`` also
compares the time of reading PDFs with and without the layout, in seconds of the processor.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import figure
from testing.made_pages import KINDS, sentence
from workers.cpu.parsing.parser import Page
from workers.cpu.readers.pdf import PdfiumReader
from workers.cpu.repeated_lines import RepeatedLines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pages", type=int, default=100, help="pages of each kind")
    arguments.add_argument("--files", type=Path, help="also measure the speed with the PDFs of this folder")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "page.pdf")
        for kind, make, judge in KINDS:
            choose = random.Random(kind)
            for arranged in (False, True):
                right = total = 0
                choose.seed(kind)
                for _ in range(options.pages):
                    page, expected = make(choose)
                    page.output(str(path))
                    good, of = judge(PdfiumReader(str(path), "", arranged=arranged).read_page(1).text.replace("\r", ""), expected)
                    right, total = right + good, total + of
                figure("page_layout.right", right / total, "share", kind=kind, layout=arranged, of=total)
    kept, removed, lost = measure_headers(random.Random(1), options.pages)
    figure("page_layout.headers", removed, "share removed", kept_lines_lost=lost, pages=kept)
    if options.files:
        measure_speed(options.files)


def measure_headers(choose: random.Random, pages: int) -> tuple[int, float, int]:
    """Pages, the share of header and footer lines after the first page that are removed, and the other lines that are missing."""
    removed = expected = lost = 0
    for number in range(max(1, pages // 10)):
        page_lines = [[sentence(choose, 9) for _ in range(20)] for _ in range(10)]
        header, footer = sentence(choose, 4), ("Page {} of 10", "{}", "- {} -")[number % 3]
        repeated = RepeatedLines()
        made = [
            Page(number=place, text="\n".join([header, *lines, f"Total {choose.randint(1, 999)}", footer.format(place)]))
            for place, lines in enumerate(page_lines, 1)
        ]
        for page in made:
            repeated.count(page.number, page.text)
        for page, lines in zip(made, page_lines, strict=True):
            left = repeated.remove(page)
            removed += left.removed_lines
            expected += 2 if page.number > 1 else 0
            lost += sum(line not in left.text for line in [*lines, page.text.split("\n")[-2]])
    return 10 * max(1, pages // 10), removed / expected, lost


def measure_speed(folder: Path) -> None:
    files = sorted(folder.glob("*.pdf"))
    for path in files:
        best = [min(read_seconds(path, arranged) for _ in range(3)) for arranged in (False, True)]
        pages = PdfiumReader(str(path), "").pages
        figure(
            "page_layout.read",
            best[1] * 1000 / pages,
            "ms/page",
            file=path.name,
            pages=pages,
            without=round(best[0] * 1000 / pages, 2),
            changed=sum(changed_pages(path)),
        )


def read_seconds(path: Path, arranged: bool) -> float:
    start = time.process_time()
    reader = PdfiumReader(str(path), "", arranged=arranged)
    for number in range(1, reader.pages + 1):
        reader.read_page(number)
    return time.process_time() - start


def changed_pages(path: Path) -> Iterator[bool]:
    arranged, plain = PdfiumReader(str(path), ""), PdfiumReader(str(path), "", arranged=False)
    for number in range(1, plain.pages + 1):
        yield arranged.read_page(number).text != plain.read_page(number).text


if __name__ == "__main__":
    main()
