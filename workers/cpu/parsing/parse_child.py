"""Child process that reads one untrusted file and writes its pages to standard output, one JSON object per line.

It closes its sandbox before it opens the file. The lines are:

    {"pages": 90, "title": "…"}                                                 once, first
    {"page": 1, "text": "…", "images": false, "headings": [], "fault": "", "pictures": []}  for each requested page, in order
    {"page": 2, "text": "", "fault": "pypdfium2: …", …}                         a page that no reader could read
    {"end": "read"}                                                             at the end, or
    {"end": "encrypted" | "unsupported" | "too_large" | "unreadable", "reason": "…"}
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from workers.cpu.readers.reader import Content, Reader, ReadError
from workers.cpu.readers.registry import import_reader, open_reader
from workers.cpu.readers.text_builder import clean_text
from workers.cpu.sandbox.sandbox import close_sandbox


def write_line(**fields: object) -> None:
    sys.stdout.buffer.write(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    sys.stdout.buffer.flush()


def write_pages(request: dict[str, Any]) -> None:
    """Read the requested pages and write each. Raises ReadError, or whatever the reader raises when it opens the file."""
    path, password, max_characters = request["path"], request["password"], request["max_page_characters"]
    reader = open_reader(request["reader"], path, password, arranged=request["arranged"])
    second_reader = cache(lambda: open_reader("pypdf", path, password)) if reader.name == "pypdfium2" else None
    if reader.pages > request["max_pages"]:
        raise ReadError(
            "too_large",
            f"The document has {reader.pages} pages; the limit is {request['max_pages']} (ENGINEHOUSE_MAX_PAGES).",
        )
    write_line(pages=reader.pages, title=clean_text(reader.title)[:500])
    for number in range(request["first"], min(request["last"] or reader.pages, reader.pages) + 1):
        content = _read_page(reader, second_reader, number)
        text = clean_text(content.text)
        if len(text) > max_characters:
            raise ReadError(
                "too_large",
                f"Page {number} has more than {max_characters} characters, the limit for a page "
                "(ENGINEHOUSE_MAX_PAGE_CHARACTERS).",
            )
        write_line(
            page=number,
            text=text,
            images=content.images,
            headings=content.headings,
            fault=content.fault,
            pictures=content.pictures,
        )
    write_line(end="read")


def _read_page(reader: Reader, second_reader: Callable[[], Reader] | None, number: int) -> Content:
    fault = ""
    for open_next in [lambda: reader, *([second_reader] if second_reader else [])]:
        try:
            return open_next().read_page(number)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a broken page may raise anything; the other pages must still be read
            fault = fault or f"{reader.name}: {type(error).__name__}: {error}"[:200]
    return Content("", fault=fault)


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    import_reader(request["reader"])
    close_sandbox(request["memory_bytes"], request["seconds"], [request["descriptor"]])
    try:
        write_pages(request)
    except ReadError as error:
        write_line(end=error.code, reason=str(error))
    except MemoryError:
        mebibytes = request["memory_bytes"] // 2**20
        write_line(
            end="too_large",
            reason=f"Reading the file needs more than {mebibytes} MiB of memory (ENGINEHOUSE_PARSE_MEMORY_BYTES).",
        )
    except Exception as error:  # noqa: BLE001 - the top of the process; the parent decides what the error means
        write_line(end="unreadable", reason=f"{request['reader']}: {type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    main()
