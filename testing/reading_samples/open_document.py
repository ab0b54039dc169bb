"""OpenDocument files."""

from collections.abc import Iterator

from testing.reading_samples.package import DECLARATION, Sample, packed


def open_document(body: str, kind: str = "text", parts: dict[str, str | bytes] | None = None) -> bytes:
    names = "urn:oasis:names:tc:opendocument:xmlns:"
    prefixes = " ".join(
        f'xmlns:{prefix}="{names}{name}:1.0"'
        for prefix, name in (
            ("office", "office"),
            ("text", "text"),
            ("table", "table"),
            ("draw", "drawing"),
            ("presentation", "presentation"),
        )
    )
    return packed(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": f'{DECLARATION}<office:document-content {prefixes} xmlns:dc="http://purl.org/dc/elements/1.1/" '
            f'xmlns:xlink="http://www.w3.org/1999/xlink"><office:body><office:{kind}>{body}</office:{kind}></office:body>'
            "</office:document-content>",
            "META-INF/manifest.xml": f'{DECLARATION}<manifest:manifest xmlns:manifest="{names}manifest:1.0">'
            f'<manifest:file-entry manifest:full-path="/" manifest:media-type="application/vnd.oasis.opendocument.{kind}"/>'
            '<manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/></manifest:manifest>',
            "styles.xml": f'{DECLARATION}<office:document-styles xmlns:office="{names}office:1.0"/>',
            **(parts or {}),
        }
    )


def open_document_samples() -> Iterator[Sample]:
    yield Sample(
        "letter.odt",
        lambda: open_document(
            "<text:h text:outline-level='1'>Harbour</text:h><text:p>It opens<text:s text:c='2'/>at<text:tab/>six"
            "<text:line-break/>and <text:span>closes</text:span> at ten.</text:p><text:list><text:list-item><text:p>Berth one</text:p>"
            "</text:list-item></text:list>"
        ),
        must=("Harbour It opens at six and closes at ten.", "Berth one"),
    )
    yield Sample(
        "notes.odt",
        lambda: open_document(
            "<text:tracked-changes><text:changed-region><text:deletion><text:p>gone</text:p></text:deletion></text:changed-region>"
            "</text:tracked-changes><text:p>Safe<text:note text:note-class='footnote'><text:note-citation>1</text:note-citation>"
            "<text:note-body><text:p>Except kidneys.</text:p></text:note-body></text:note> for adults.<office:annotation><dc:creator>A"
            "</dc:creator><text:p>Check this.</text:p></office:annotation></text:p>"
        ),
        must=("Safe for adults.", "Except kidneys.", "Check this."),
        never=("gone",),
    )
    yield Sample(
        "box.odt",
        lambda: open_document(
            "<text:p>Before.<draw:frame><draw:text-box><text:p>Boxed.</text:p></draw:text-box></draw:frame></text:p>"
            "<text:section><text:p>In a section.</text:p></text:section>"
        ),
        must=("Before.", "In a section."),
        never=("Before.Boxed",),
        count={"Boxed.": 1},
    )
    cell = "<table:table-cell{}><text:p>{}</text:p></table:table-cell>"
    yield Sample(
        "table.odt",
        lambda: open_document(
            f"<table:table><table:table-header-rows><table:table-row>{cell.format('', 'Part')}{cell.format('', 'Count')}</table:table-row>"
            f"</table:table-header-rows><table:table-row>{cell.format('', 'Bolt')}{cell.format('', '12')}</table:table-row></table:table>"
        ),
        must=("Part: Bolt; Count: 12",),
    )
    yield Sample(
        "sheet.ods",
        lambda: open_document(
            f"<table:table table:name='Stock'><table:table-row>{cell.format('', 'Part')}{cell.format('', 'Count')}</table:table-row>"
            f"<table:table-row>{cell.format('', 'Bolt')}{cell.format('', '12')}<table:table-cell table:number-columns-repeated='16382'/>"
            "</table:table-row><table:table-row table:number-rows-repeated='1048574'><table:table-cell/></table:table-row></table:table>",
            "spreadsheet",
        ),
        must=("Stock", "Part: Bolt; Count: 12"),
    )
    yield Sample(
        "slides.odp",
        lambda: open_document(
            "<draw:page><draw:frame presentation:class='title'><draw:text-box><text:p>First</text:p></draw:text-box></draw:frame>"
            "<draw:frame><draw:text-box><text:p>Shown.</text:p></draw:text-box></draw:frame><presentation:notes><draw:frame><draw:text-box>"
            "<text:p>Spoken.</text:p></draw:text-box></draw:frame></presentation:notes></draw:page>",
            "presentation",
        ),
        must=("First Shown. Spoken.",),
    )
    yield Sample("image.odt", lambda: open_document("<text:p>See.<draw:frame><draw:image/></draw:frame></text:p>"), must=("See.",),
                 problem="images")  # fmt: skip
    yield Sample(
        "beside-cells.ods",
        lambda: open_document(
            "<table:table table:name='S'><table:shapes><draw:frame><draw:text-box><text:p>Boxed.</text:p></draw:text-box></draw:frame>"
            f"</table:shapes><table:table-row>{cell.format('', 'v')}<table:table-cell><office:annotation><dc:creator>A</dc:creator>"
            "<text:p>A remark.</text:p></office:annotation><text:p>12</text:p></table:table-cell></table:table-row></table:table>",
            "spreadsheet",
        ),
        must=("v | 12", "Boxed.", "Comment: A remark."),
    )
    form = "xmlns:form='urn:oasis:names:tc:opendocument:xmlns:form:1.0'"
    yield Sample(
        "form.odt",
        lambda: open_document(
            f"<office:forms {form}><form:form><form:text form:current-value='Typed in'/><form:fixed-text form:label='Your name'/>"
            "<form:hidden form:value='unseen'/></form:form></office:forms><text:p>x</text:p>"
        ),
        must=("Typed in", "Your name"),
        never=("unseen",),
    )
    yield Sample(
        "declared-footer.odp",
        lambda: open_document(
            "<presentation:footer-decl presentation:name='f'>Foot text</presentation:footer-decl><draw:page><draw:g><draw:custom-shape>"
            "<text:p>Group<text:line-break/>ed</text:p></draw:custom-shape></draw:g></draw:page>",
            "presentation",
        ),
        must=("Foot text", "Group ed"),
    )
