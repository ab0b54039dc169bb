"""The child process that opens one hostile file and writes its pages to standard output, a JSON object a line.

It limits itself before it opens anything. It knows nothing of documents, jobs or Redis, and gets neither the environment
nor the open files of its parent; its order comes by standard input, as arguments can be read by everybody. Lines:

    {"pages": 90, "title": "…"}                                                 once, first
    {"page": 1, "text": "…", "images": false, "headings": [], "fault": ""}      for each page of the order, in order
    {"page": 2, "text": "", "fault": "pypdfium2: …", …}                         a page that no reader could read
    {"end": "read"}                                                             or
    {"end": "encrypted" | "unsupported" | "too_large" | "unreadable", "reason": "…"}
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from workers.cpu.parsing.limits import restrict
from workers.cpu.readers.reader import Content, Reader, ReadError, clean_text
from workers.cpu.readers.registry import open_reader


def tell(**line: object) -> None:
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    sys.stdout.buffer.flush()


def run(order: dict[str, Any]) -> None:
    """Read the pages of an order and tell each. Raises Rejected, or whatever the reader raises on opening."""
    path, password, most = order["path"], order["password"], order["max_page_characters"]
    reader = open_reader(order["reader"], path, password)
    second_opinion = cache(lambda: open_reader("pypdf", path, password)) if reader.name == "pypdfium2" else None
    if reader.pages > order["max_pages"]:
        raise ReadError(
            "too_large", f"It has {reader.pages} pages; at most {order['max_pages']} are read (ENGINEHOUSE_MAX_PAGES)."
        )
    tell(pages=reader.pages, title=clean_text(reader.title)[:500])
    for number in range(order["first"], min(order["last"] or reader.pages, reader.pages) + 1):
        content = _read_page(reader, second_opinion, number)
        text = clean_text(content.text)
        if len(text) > most:
            raise ReadError(
                "too_large",
                f"Page {number} has more than {most} characters, the most of one page (ENGINEHOUSE_MAX_PAGE_CHARACTERS).",
            )
        tell(page=number, text=text, images=content.images, headings=content.headings, fault=content.fault)
    tell(end="read")


def _read_page(reader: Reader, second_opinion: Callable[[], Reader] | None, number: int) -> Content:
    fault = ""
    opinions = [lambda: reader, *([second_opinion] if second_opinion else [])]
    for opinion in opinions:
        try:
            return opinion().read(number)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a broken page may raise anything; the others are still wanted
            fault = fault or f"{reader.name}: {type(error).__name__}: {error}"[:200]
    return Content("", fault=fault)


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    restrict(order["memory_bytes"], order["seconds"])
    try:
        run(order)
    except ReadError as rejected:
        tell(end=rejected.end, reason=str(rejected))
    except MemoryError:
        mebibytes = order["memory_bytes"] // 2**20
        tell(end="too_large", reason=f"Reading it takes more than {mebibytes} MiB of memory (ENGINEHOUSE_PARSE_MEMORY_BYTES).")
    except Exception as error:  # noqa: BLE001 - the top of the process; the parent decides what to make of it
        tell(end="unreadable", reason=f"{order['reader']}: {type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    main()
