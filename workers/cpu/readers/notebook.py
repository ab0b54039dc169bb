"""Jupyter notebook reader: Markdown cells with their headings, code cells, and the text of their outputs."""

import json
from typing import Any

from workers.cpu.readers.markup import add_markup, parse_html
from workers.cpu.readers.reader import InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text import add_markdown, decode, without_terminal_codes
from workers.cpu.readers.text_builder import TextBuilder

MAX_OUTPUT_CHARACTERS = 2_000
"""Longer outputs are cut: they are mostly logs and tables of numbers."""


class NotebookReader(InMemoryReader):
    """Notebooks (.ipynb) of format 4."""

    name = "notebook"

    def __init__(self, source: Source, password: str) -> None:
        try:
            notebook = json.loads(decode(read_source(source)))
        except RecursionError:
            raise ReadError("too_large", "The notebook is nested too deeply.") from None
        builder, cut = TextBuilder(), 0
        for cell in notebook["cells"]:
            text = _joined(cell.get("source", ""))
            if cell.get("cell_type") == "markdown":
                add_markdown(builder, text.rstrip() + "\n")
            elif text.strip():
                builder.add_line(text)
            for output in cell.get("outputs", ()):
                shown = _output_text(output)
                if shown.strip():
                    builder.add_line(shown[:MAX_OUTPUT_CHARACTERS])
                    cut += len(shown) > MAX_OUTPUT_CHARACTERS
                elif any(media_type.startswith("image/") for media_type in output.get("data", ())):
                    builder.skip("images")
            builder.add_text("\n")
        if cut:
            builder.fault = f"has {cut} outputs longer than {MAX_OUTPUT_CHARACTERS} characters, of which the rest was not read"
        super().__init__(builder.build_pages())


def _output_text(output: dict[str, Any]) -> str:
    if output.get("output_type") == "error":
        return f"{output.get('ename', '')}: {output.get('evalue', '')}"
    if output.get("text"):
        return without_terminal_codes(_joined(output["text"]))
    data = output.get("data", {})
    plain = next((_joined(data[kind]) for kind in ("text/plain", "text/markdown", "text/latex") if data.get(kind)), "")
    if plain or not data.get("text/html"):
        return plain
    builder, root = TextBuilder(), parse_html(_joined(data["text/html"]).encode())
    if root is not None:
        add_markup(builder, root)
    return "".join(content.text for content in builder.build_pages())


def _joined(value: object) -> str:
    """Multi-line text, which a notebook stores as a string or as a list of lines."""
    return "".join(map(str, value)) if isinstance(value, list) else str(value)
