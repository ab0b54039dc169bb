"""Word files."""

# ruff: noqa: RUF001 - other scripts, and the quotes of texts

import io
import zipfile
from collections.abc import Callable, Iterator

from testing.reading_samples.package import (
    CHART,
    DECLARATION,
    DIAGRAM,
    MAIN,
    OFFICE,
    PREFIXES,
    TYPES,
    Sample,
    packed,
    relationships,
)


def word(
    body: str,
    parts: dict[str, str | bytes] | None = None,
    related: tuple[tuple[str, str], ...] = (),
    *,
    main: str = "document.xml",
    kind: str = "wordprocessingml.document.main",
) -> bytes:
    document = f"{DECLARATION}<w:document {PREFIXES}><w:body>{body}</w:body></w:document>"
    types = f'<Override PartName="/word/{main}" ContentType="{MAIN.format(kind)}"/>'
    return packed(
        {
            "[Content_Types].xml": DECLARATION + TYPES.format(types),
            "_rels/.rels": relationships(("officeDocument", f"word/{main}")),
            f"word/{main}": document,
            f"word/_rels/{main}.rels": relationships(*related),
            **(parts or {}),
        }
    )


def paragraph(text: str) -> str:
    return f'<w:p><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def table(*rows: str) -> str:
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def cells(*contents: str) -> str:
    return "".join(f"<w:tc>{content if content.startswith('<') else paragraph(content)}</w:tc>" for content in contents)


def word_part(tag: str, content: str) -> str:
    return f"{DECLARATION}<w:{tag} {PREFIXES}>{content}</w:{tag}>"


def _box(text: str) -> str:
    inner = f"<w:txbxContent>{text if text.startswith('<') else paragraph(text)}</w:txbxContent>"
    return (
        f'<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><a:graphic><a:graphicData><wps:wsp><wps:txbx>{inner}'
        f"</wps:txbx></wps:wsp></a:graphicData></a:graphic></w:drawing></mc:Choice><mc:Fallback><w:pict><v:shape><v:textbox>"
        f"{inner}</v:textbox></v:shape></w:pict></mc:Fallback></mc:AlternateContent></w:r>"
    )


def word_samples() -> Iterator[Sample]:
    clause = "The penalty for late delivery is forty-two euros a day."
    yield Sample(
        "content-control.docx",
        lambda: word(paragraph("Opening.") + f"<w:sdt><w:sdtPr/><w:sdtContent>{paragraph(clause)}</w:sdtContent></w:sdt>"),
        must=("Opening.", clause),
    )
    yield Sample(
        "content-controls-nested.docx",
        lambda: word(
            f"<w:sdt><w:sdtContent><w:sdt><w:sdtContent>{paragraph('Budget code 7781.')}</w:sdtContent></w:sdt></w:sdtContent></w:sdt>"
        ),
        must=("Budget code 7781.",),
    )
    yield Sample(
        "content-control-inline.docx",
        lambda: word(f"<w:p>{run('Signed by ')}<w:sdt><w:sdtContent>{run('Ada')}</w:sdtContent></w:sdt>{run(' today.')}</w:p>"),
        must=("Signed by Ada today.",),
    )
    yield Sample(
        "content-control-rows.docx",
        lambda: word(
            f"<w:tbl><w:tr>{cells('Part', 'Count')}</w:tr><w:sdt><w:sdtContent><w:tr>{cells('Bolt', '12')}</w:tr></w:sdtContent></w:sdt>"
            f"<w:tr><w:sdt><w:sdtContent>{cells('Nut')}</w:sdtContent></w:sdt>{cells('40')}</w:tr></w:tbl>"
        ),
        must=("Part: Bolt; Count: 12", "Part: Nut; Count: 40"),
    )
    yield Sample(
        "custom-xml.docx",
        lambda: word(
            f"<w:customXml>{paragraph('Inside custom XML.')}</w:customXml><w:p><w:smartTag>{run('Smart')}</w:smartTag></w:p>"
        ),
        must=("Inside custom XML.", "Smart"),
    )
    yield Sample(
        "text-box.docx",
        lambda: word(f"<w:p>{run('Before the box.')}{_box('Keep valve nine shut.')}</w:p>{paragraph('After the box.')}"),
        must=("Before the box.", "After the box."),
        never=("box.Keep",),
        count={"Keep valve nine shut.": 1},
    )
    yield Sample(
        "text-box-with-table.docx",
        lambda: word(f"<w:p>{_box(table(cells('Torque', '35 Nm')))}</w:p>{paragraph('After.')}"),
        must=("After.",),
        count={"Torque | 35 Nm": 1},
    )
    yield Sample(
        "text-box-in-cell.docx",
        lambda: word(table(cells("Left", f"<w:p>{run('Right')}{_box('Boxed.')}</w:p>"))),
        must=("Left | Right",),
        count={"Boxed.": 1},
    )
    yield Sample(
        "text-box-old.docx",
        lambda: word(
            f"<w:p><w:r><w:pict><v:shape><v:textbox><w:txbxContent>{paragraph('Old box.')}</w:txbxContent></v:textbox></v:shape>"
            "</w:pict></w:r></w:p>"
        ),
        count={"Old box.": 1},
    )
    moved = "Paragraph seven was moved to the end."
    yield Sample(
        "tracked.docx",
        lambda: word(
            f"<w:p><w:moveFrom w:id='1'>{run(moved)}</w:moveFrom></w:p><w:p>{run('The fee is ')}<w:del w:id='2'><w:r><w:delText>100"
            f"</w:delText></w:r></w:del><w:ins w:id='3'>{run('250')}</w:ins>{run(' euros.')}</w:p>"
            f"<w:p><w:moveTo w:id='4'>{run(moved)}</w:moveTo></w:p>"
        ),
        must=("The fee is 250 euros.",),
        count={moved: 1},
    )
    yield Sample(
        "tracked-rows.docx",
        lambda: word(
            f"<w:tbl><w:tr>{cells('Part', 'Count')}</w:tr><w:tr><w:trPr><w:del w:id='1'/></w:trPr>{cells('Gone', '1')}</w:tr>"
            f"<w:tr><w:trPr><w:ins w:id='2'/></w:trPr>{cells('New', '2')}</w:tr></w:tbl>"
        ),
        must=("Part: New; Count: 2",),
        never=("Gone",),
    )
    yield Sample(
        "tracked-paragraph-mark.docx",
        lambda: word(
            f"<w:p><w:pPr><w:rPr><w:del w:id='1'/></w:rPr></w:pPr>{run('The first half')}</w:p>{paragraph('and the rest.')}"
        ),
        must=("The first half and the rest.",),
    )
    yield Sample(
        "hyphens.docx",
        lambda: word(
            "<w:p><w:r><w:t>Part ABC</w:t><w:noBreakHyphen/><w:t>4711, co</w:t><w:softHyphen/><w:t>operate, Straf\u00adfe.</w:t></w:r></w:p>"
        ),
        must=("Part ABC-4711, cooperate, Straffe.",),
    )
    yield Sample(
        "breaks.docx",
        lambda: word(
            "<w:p><w:r><w:t>One</w:t><w:br/><w:t>two</w:t><w:tab/><w:t>three</w:t><w:cr/><w:t>four</w:t><w:ptab/><w:t>five</w:t></w:r></w:p>"
        ),
        must=("One two three four five",),
    )
    level = "<w:lvl w:ilvl='{}'><w:start w:val='1'/><w:numFmt w:val='{}'/><w:lvlText w:val='{}'/></w:lvl>"
    levels = level.format(0, "decimal", "%1.") + level.format(1, "lowerLetter", "%1.%2)") + level.format(2, "bullet", "-")
    counted = "<w:p><w:pPr><w:numPr><w:ilvl w:val='{}'/><w:numId w:val='1'/></w:numPr></w:pPr>" + run("{}") + "</w:p>"
    yield Sample(
        "numbers.docx",
        lambda: word(
            "".join(
                counted.format(*item)
                for item in ((0, "Scope"), (1, "Parts"), (1, "Price"), (0, "Term"), (1, "Start"), (2, "Dot"))
            ),
            {
                "word/numbering.xml": word_part(
                    "numbering",
                    f"<w:abstractNum w:abstractNumId='7'>{levels}</w:abstractNum><w:num w:numId='1'><w:abstractNumId w:val='7'/></w:num>",
                )
            },
            (("numbering", "numbering.xml"),),
        ),
        must=("1. Scope 1.a) Parts 1.b) Price 2. Term 2.a) Start Dot",),
    )
    yield Sample(
        "block-alternatives.docx",
        lambda: word(
            f"<mc:AlternateContent><mc:Choice Requires='x'>{paragraph('Shown once.')}</mc:Choice><mc:Fallback>{paragraph('Shown once.')}"
            "</mc:Fallback></mc:AlternateContent>"
        ),
        count={"Shown once.": 1},
    )
    yield Sample("split-word.docx", lambda: word(table(cells(f"<w:p>{run('Bo')}{run('lt')}</w:p>", "12"))), must=("Bolt | 12",))
    yield Sample(
        "formula.docx",
        lambda: word(
            f"<w:p>{run('Energy is ')}<m:oMath><m:r><m:t>E=m</m:t></m:r><m:sSup><m:e><m:r><m:t>c</m:t></m:r></m:e><m:sup><m:r><m:t>2"
            f"</m:t></m:r></m:sup></m:sSup></m:oMath>{run(' joules.')}</w:p>"
        ),
        must=("Energy is E=mc^2 joules.",),
    )
    yield Sample(
        "power.docx",
        lambda: word(
            f"<w:p>{run('It has 10')}<w:r><w:rPr><w:vertAlign w:val='superscript'/></w:rPr><w:t>6</w:t></w:r>{run(' cells.')}</w:p>"
        ),
        must=("It has 10^6 cells.",),
    )
    for tag in ("footnote", "endnote", "comment"):
        yield Sample(
            f"{tag}.docx",
            lambda tag=tag: word(  # type: ignore[misc]
                f"<w:p>{run('The drug is safe')}<w:r><w:{tag}Reference w:id='2'/></w:r>{run(' for adults.')}</w:p>{paragraph('Next.')}",
                {
                    f"word/{tag}s.xml": word_part(
                        f"{tag}s",
                        f"<w:{tag} w:id='0' w:type='separator'>{paragraph('No text')}</w:{tag}>"
                        f"<w:{tag} w:id='2' w:author='Ada'>{paragraph('Except with kidney failure')}{paragraph('stage four.')}</w:{tag}>"
                        if tag == "comment"
                        else f"<w:{tag} w:id='0' w:type='separator'>{paragraph('No text')}</w:{tag}>"
                        f"<w:{tag} w:id='2'>{paragraph('Except with kidney failure')}{paragraph('stage four.')}</w:{tag}>",
                    )
                },
                ((f"{tag}s", f"{tag}s.xml"),),
            ),
            must=("The drug is safe for adults.", "Except with kidney failure stage four. Next."),
            never=("No text",),
        )
    yield Sample(
        "headers.docx",
        lambda: word(
            paragraph("Body."),
            {
                "word/header1.xml": word_part("hdr", paragraph("Contract 4711")),
                "word/footer1.xml": word_part("ftr", paragraph("7")),
            },
            (("header", "header1.xml"), ("footer", "footer1.xml")),
        ),
        must=("Body.", "Contract 4711"),
        never=("7 ",),
    )
    yield Sample(
        "nested-table.docx",
        lambda: word(
            table(
                cells("Step", "Action"),
                cells("1", paragraph("Open the valve.") + paragraph("Wait.") + table(cells("Torque", "35 Nm")) + "<w:p/>"),
            )
        ),
        must=("Open the valve. Wait. Torque 35 Nm",),
    )
    yield Sample(
        "merged-cells.docx",
        lambda: word(
            table(
                cells("Part", "Count", "Shelf"),
                f"<w:tc><w:tcPr><w:gridSpan w:val='2'/></w:tcPr>{paragraph('Bolts and nuts')}</w:tc>{cells('B7')}",
            )
        ),
        must=("Part: Bolts and nuts; Shelf: B7",),
    )
    yield Sample("macro.docm", lambda: word(paragraph("Pay at once."), {"word/vbaProject.bin": b"macro"},
                 kind="wordprocessingml.document.macroEnabled.main"), must=("Pay at once.",), problem="macros")  # fmt: skip
    yield Sample(
        "template.dotx", lambda: word(paragraph("Dear Sir,"), kind="wordprocessingml.template.main"), must=("Dear Sir,",)
    )
    yield Sample("other-name.docx", lambda: word(paragraph("Pay at once."), main="document2.xml"), must=("Pay at once.",))
    yield Sample("odd-name.docx", lambda: word(paragraph("Pay at once."), main="text.xml"), must=("Pay at once.",))
    yield Sample("strict.docx", lambda: strict(word(paragraph("Written strictly."))), must=("Written strictly.",))
    yield Sample("backslashes.docx", lambda: renamed(word(paragraph("Zipped oddly.")), lambda name: name.replace("/", "\\")),
                 must=("Zipped oddly.",))  # fmt: skip
    yield Sample("capitals.docx", lambda: renamed(word(paragraph("Zipped loudly.")), str.upper), must=("Zipped loudly.",))
    drawing = "<w:p><w:r><w:drawing><a:graphic><a:graphicData>{}</a:graphicData></a:graphic></w:drawing></w:r></w:p>"
    yield Sample(
        "chart.docx",
        lambda: word(
            drawing.format("<c:chart r:id='rId1'/>"), {"word/charts/chart1.xml": CHART}, (("chart", "charts/chart1.xml"),)
        ),
        must=("Sales by region", "North", "41", "South", "17", "Revenue"),
    )
    yield Sample(
        "diagram.docx",
        lambda: word(drawing.format("<dgm:relIds r:dm='rId1'/>"), {"word/data1.xml": DIAGRAM}, (("diagramData", "data1.xml"),)),
        must=("Escalate to the duty engineer",),
    )
    yield Sample("image.docx", lambda: word(paragraph("See the picture.") + drawing.format("<a:blip r:embed='rId1'/>")),
                 must=("See the picture.",), problem="images")  # fmt: skip
    yield Sample("embedded.docx", lambda: word(paragraph("See the sheet.") + "<w:p><w:r><w:object><o:OLEObject/></w:object></w:r></w:p>"),
                 must=("See the sheet.",), problem="embedded objects")  # fmt: skip
    yield Sample(
        "inserted.docx",
        lambda: word(
            "<w:altChunk r:id='rId1'/>",
            {"word/chunk.html": "<html><p>Inserted <b>HTML</b>.</p></html>"},
            (("aFChunk", "chunk.html"),),
        ),
        must=("Inserted HTML.",),
    )
    yield Sample(
        "form-fields.docx",
        lambda: word(
            f"<w:p>{run('Size: ')}<w:r><w:fldChar w:fldCharType='begin'><w:ffData><w:ddList><w:result w:val='1'/><w:listEntry w:val='S'/>"
            f"<w:listEntry w:val='Medium'/></w:ddList></w:ffData></w:fldChar></w:r></w:p>"
        ),
        must=("Size: Medium",),
    )
    yield Sample("symbols.docx", lambda: word("<w:p><w:r><w:sym w:font='Symbol' w:char='F061'/><w:t> and </w:t>"
                 "<w:sym w:font='Wingdings' w:char='F0FC'/></w:r></w:p>"), must=("α and ✓",))  # fmt: skip
    yield Sample(
        "fields.docx",
        lambda: word(
            "<w:p><w:r><w:fldChar w:fldCharType='begin'/></w:r><w:r><w:instrText>HYPERLINK x</w:instrText></w:r>"
            f"{run('the site')}<w:fldSimple w:instr='DATE'>{run(' of May')}</w:fldSimple><w:hyperlink>{run(' and more')}</w:hyperlink></w:p>"
        ),
        must=("the site of May and more",),
        never=("HYPERLINK",),
    )
    yield Sample(
        "word-art.docx",
        lambda: word(f"<w:p><w:r><w:pict><v:shape><v:textpath string='DRAFT ONE'/></v:shape></w:pict></w:r>{run('Body.')}</w:p>"),
        must=("DRAFT ONE Body.",),
    )
    yield Sample("linked.docx", lambda: word(f"<w:p><w:subDoc r:id='rId1'/></w:p>{paragraph('Master.')}"), must=("Master.",),
                 problem="linked documents")  # fmt: skip
    section = "<w:lvl w:ilvl='0'><w:start w:val='{}'/><w:numFmt w:val='{}'/><w:lvlText w:val='{} %1'/></w:lvl>"
    definitions = (
        "<w:abstractNum w:abstractNumId='1'><w:numStyleLink w:val='L'/></w:abstractNum>"
        f"<w:abstractNum w:abstractNumId='2'><w:styleLink w:val='L'/>{section.format(1, 'decimal', '§')}</w:abstractNum>"
        f"<w:abstractNum w:abstractNumId='3'>{section.format(1, 'decimal', 'No.')}</w:abstractNum>"
        f"<w:abstractNum w:abstractNumId='4'>{section.format(1, 'decimal', 'No.')}</w:abstractNum>"
        "<w:num w:numId='1'><w:abstractNumId w:val='1'/></w:num><w:num w:numId='3'><w:abstractNumId w:val='3'/><w:lvlOverride"
        f" w:ilvl='0'>{section.format(4, 'upperRoman', 'Art.')}</w:lvlOverride></w:num>"
        "<w:num w:numId='4'><w:abstractNumId w:val='4'/></w:num>"
    )
    styles = (
        "<w:style w:type='paragraph' w:styleId='A'><w:name w:val='a'/><w:pPr><w:numPr><w:numId w:val='4'/></w:numPr></w:pPr></w:style>"
        "<w:style w:type='paragraph' w:styleId='B'><w:name w:val='b'/><w:basedOn w:val='A'/></w:style>"
    )
    listed = "<w:p><w:pPr><w:numPr><w:ilvl w:val='0'/><w:numId w:val='{}'/></w:numPr></w:pPr>" + run("{}") + "</w:p>"
    yield Sample(
        "numbers-of-others.docx",
        lambda: word(
            listed.format(1, "Linked")
            + listed.format(3, "Overridden")
            + f"<w:p><w:pPr><w:pStyle w:val='B'/></w:pPr>{run('Based')}</w:p>",
            {"word/numbering.xml": word_part("numbering", definitions), "word/styles.xml": word_part("styles", styles)},
            (("numbering", "numbering.xml"), ("styles", "styles.xml")),
        ),
        must=("§ 1 Linked Art. IV Overridden No. 1 Based",),
    )


def strict(data: bytes) -> bytes:
    """An Office file in the namespaces of "Strict Open XML"."""
    members: dict[str, str | bytes] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        for name in old.namelist():
            text = old.read(name).decode()
            for namespace in ("wordprocessingml", "spreadsheetml", "presentationml", "drawingml"):
                text = text.replace(f"{OFFICE}/{namespace}/2006/", f"http://purl.oclc.org/ooxml/{namespace}/")
            text = text.replace(f"{OFFICE}/officeDocument/2006/", "http://purl.oclc.org/ooxml/officeDocument/")
            members[name] = text
    return packed(members)


def renamed(data: bytes, change: Callable[[str], str]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        return packed({change(name): old.read(name) for name in old.namelist()})
