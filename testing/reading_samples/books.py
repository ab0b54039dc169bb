"""E-books."""

from collections.abc import Iterator

from testing.reading_samples.package import DECLARATION, Sample, packed


def epub(
    chapter: str, *, href: str = "c.xhtml", name: str = "c.xhtml", parts: dict[str, str | bytes] | None = None, more: str = ""
) -> bytes:
    return packed(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": f'{DECLARATION}<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="content.opf"/></rootfiles></container>',
            "content.opf": f'{DECLARATION}<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="c" href="{href}" '
            f'media-type="application/xhtml+xml"/>{more}</manifest><spine><itemref idref="c"/></spine></package>',
            name: chapter,
            **(parts or {}),
        }
    )


def book_samples() -> Iterator[Sample]:
    page = f'{DECLARATION}<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{{}}</body></html>'
    yield Sample("case.epub", lambda: epub(page.format("<p>The whale is white.</p>"), href="Text/C.xhtml", name="text/c.xhtml"),
                 must=("The whale is white.",))  # fmt: skip
    yield Sample("self-closing.epub", lambda: epub(page.format("<p>One.</p><a id='x'/><script src='a.js'/><div/><p>Two.</p>")),
                 must=("One.", "Two."))  # fmt: skip
    yield Sample("self-closing-entities.epub", lambda: epub(page.format("<p>One&nbsp;a.</p><a id='x'/><script src='a.js'/><p>Two.</p>")),
                 must=("One a.", "Two."))  # fmt: skip
    yield Sample(
        "percent.epub", lambda: epub(page.format("<p>Read.</p>"), href="my%20c.xhtml#top", name="my c.xhtml"), must=("Read.",)
    )
    yield Sample(
        "outside-spine.epub",
        lambda: epub(
            page.format("<p>Text.</p>"),
            parts={"n.xhtml": page.format("<p>A note at the end.</p>")},
            more='<item id="n" href="n.xhtml" media-type="application/xhtml+xml"/>',
        ),
        must=("Text.", "A note at the end."),
    )
