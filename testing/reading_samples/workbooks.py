"""Workbooks."""

import struct
from collections.abc import Iterator

from testing.reading_samples.package import CHART, DECLARATION, MAIN, OFFICE, PREFIXES, TYPES, Sample, packed, relationships
from testing.reading_samples.word import strict


def book(
    *sheets: str, parts: dict[str, str | bytes] | None = None, related: tuple[tuple[str, str], ...] = (), states: str = ""
) -> bytes:
    """A workbook of sheets given as rows of cells in markup. ``states`` has an h for each hidden sheet."""
    names = "".join(
        f'<sheet name="Sheet {n}" sheetId="{n}" r:id="rId{n}"{" state=" + chr(34) + "hidden" + chr(34) if states[n - 1 : n] == "h" else ""}/>'
        for n in range(1, len(sheets) + 1)
    )
    main = f'xmlns="{OFFICE}/spreadsheetml/2006/main" xmlns:r="{OFFICE}/officeDocument/2006/relationships"'
    entries = [("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)]
    entries += [("styles", "styles.xml"), ("sharedStrings", "sharedStrings.xml")]
    overrides = f'<Override PartName="/xl/workbook.xml" ContentType="{MAIN.format("spreadsheetml.sheet.main")}"/>'
    overrides += "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{MAIN.format("spreadsheetml.worksheet")}"/>'
        for n in range(1, len(sheets) + 1)
    )
    overrides += f'<Override PartName="/xl/styles.xml" ContentType="{MAIN.format("spreadsheetml.styles")}"/>'
    overrides += f'<Override PartName="/xl/sharedStrings.xml" ContentType="{MAIN.format("spreadsheetml.sharedStrings")}"/>'
    formats = "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 9, 164, 165))
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": DECLARATION + TYPES.format(overrides),
        "_rels/.rels": relationships(("officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": f"{DECLARATION}<workbook {main}><sheets>{names}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": relationships(*entries),
        "xl/styles.xml": f'{DECLARATION}<styleSheet {main}><numFmts count="2"><numFmt numFmtId="164" formatCode="00000"/>'
        '<numFmt numFmtId="165" formatCode="[$-407]d. mmmm yyyy"/></numFmts>'
        f"<cellXfs>{formats}</cellXfs></styleSheet>",
        "xl/sharedStrings.xml": f"{DECLARATION}<sst {main}><si><t>Shared</t></si><si><r><t>Ri</t></r><r><t>ch</t></r>"
        "<rPh sb='0' eb='1'><t>phonetic</t></rPh></si></sst>",
        "xl/worksheets/_rels/sheet1.xml.rels": relationships(*related),
    }
    for n, rows in enumerate(sheets, 1):
        members[f"xl/worksheets/sheet{n}.xml"] = f"{DECLARATION}<worksheet {main}><sheetData>{rows}</sheetData></worksheet>"
    return packed({**members, **(parts or {})})


def _binary_record(kind: int, data: bytes = b"") -> bytes:
    head = bytes([kind]) if kind < 128 else bytes([kind & 127 | 128, kind >> 7])
    return head + bytes([len(data) & 127 | 128, len(data) >> 7]) + data


def binary_book(*rows: list[str | float], parts: dict[str, str | bytes] | None = None) -> bytes:
    """A workbook of one sheet in the binary format (.xlsb)."""

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value)) + value.encode("utf-16-le")

    def cell(column: int, value: str | float) -> bytes:
        place = struct.pack("<II", column, 0)
        if isinstance(value, str):
            return _binary_record(6, place + text(value))
        return _binary_record(5, place + struct.pack("<d", value))

    record = _binary_record
    workbook = record(131) + record(143) + record(156, struct.pack("<II", 0, 1) + text("rId1") + text("Stock")) + record(144)
    size = struct.pack("<4I", 0, len(rows) - 1, 0, max(map(len, rows)) - 1)
    sheet = record(129) + record(148, size) + record(145)
    for number, row in enumerate(rows):
        sheet += record(0, struct.pack("<IIHB", number, 0, 300, 0) + bytes(6))
        sheet += b"".join(cell(column, value) for column, value in enumerate(row))
    return packed(
        {
            "[Content_Types].xml": DECLARATION + TYPES.format(""),
            "_rels/.rels": relationships(("officeDocument", "xl/workbook.bin")),
            "xl/workbook.bin": workbook + record(132),
            "xl/_rels/workbook.bin.rels": relationships(("worksheet", "worksheets/sheet1.bin")),
            "xl/worksheets/sheet1.bin": sheet + record(146) + record(130),
            **(parts or {}),
        }
    )


def rows(*values: list[object] | None) -> str:
    """Rows of a sheet; None is an empty one, which is left out as Excel does."""
    found = []
    for number, row in enumerate(values, 1):
        if row is not None:
            entries = "".join(
                f'<c r="{chr(65 + column)}{number}" t="inlineStr"><is><t>{value}</t></is></c>'
                if isinstance(value, str)
                else f'<c r="{chr(65 + column)}{number}"><v>{value}</v></c>'
                for column, value in enumerate(row)
                if value is not None
            )
            found.append(f'<row r="{number}">{entries}</row>')
    return "".join(found)


def workbook_samples() -> Iterator[Sample]:
    yield Sample("titles.xlsx", lambda: book(rows(["Part", "Count"], ["Bolt", 12])), must=("Part: Bolt; Count: 12",))
    yield Sample(
        "banner.xlsx",
        lambda: book(rows(["Stock report, March"], None, ["Part", "Count", "Shelf"], ["Nut", 40, "B7"])),
        must=("Stock report, March", "Part: Nut; Count: 40; Shelf: B7"),
    )
    yield Sample(
        "banner-touching.xlsx",
        lambda: book(rows(["Stock report"], ["of March"], ["Part", "Count"], ["Nut", 40])),
        must=("Stock report", "of March", "Part: Nut; Count: 40"),
    )
    yield Sample(
        "banner-of-cells.xlsx",
        lambda: book(rows(["Report", "March"], ["Part", "Count", "Shelf"], ["Nut", 40, "B7"])),
        must=("Report | March", "Part: Nut; Count: 40; Shelf: B7"),
    )
    yield Sample(
        "two-rows-of-titles.xlsx",
        lambda: book(rows([None, "Sales", None, "Costs"], ["Region", "Q1", "Q2", "Q1", "Q2"], ["North", 1, 2, 3, 4])),
        must=("Region | Q1 | Q2 | Q1 | Q2", "North | 1 | 2 | 3 | 4"),
        never=("Sales:", "Costs:"),
    )
    yield Sample(
        "years.xlsx",
        lambda: book(rows(["Region", 2022, 2023, 2024], ["North", 11, 12, 13], ["South", 21, 22, 23])),
        must=("Region: South; 2022: 21; 2023: 22; 2024: 23",),
    )
    yield Sample(
        "index-column.xlsx",
        lambda: book(rows([None, "city", "people"], [0, "Porto", 230], [1, "Lisbon", 545])),
        must=("0; city: Porto; people: 230",),
    )
    yield Sample(
        "no-titles.xlsx",
        lambda: book(rows(["Ada", 1815, 1852], ["Grace", 1906, 1992])),
        must=("Ada | 1815 | 1852", "Grace | 1906 | 1992"),
        never=("Ada: Grace", "1815:"),
    )
    yield Sample(
        "two-tables.xlsx",
        lambda: book(rows(["Name", "Age"], ["Ada", 36], None, ["City", "Inhabitants"], ["Lisbon", 545000])),
        must=("Name: Ada; Age: 36", "City: Lisbon; Inhabitants: 545000"),
        never=("Age: 545000", "Name: Lisbon", "Name: City"),
    )
    yield Sample(
        "two-tables-of-text.xlsx",
        lambda: book(rows(["Name", "Town"], ["Ada", "London"], None, ["Part", "Shelf"], ["Bolt", "B7"])),
        must=("Bolt", "B7"),
        never=("Name: Bolt", "Town: B7"),
    )
    yield Sample(
        "tables-that-touch.xlsx",
        lambda: book(rows(["A", "B"], ["x", 1], ["y", 2], ["Other"], ["C", "D"], ["z", 5])),
        must=("A: y; B: 2", "Other", "C: z; D: 5"),
        never=("A: C", "A: z"),
    )
    yield Sample(
        "form.xlsx",
        lambda: book(rows(["Name", "Ada"], ["Age", 36], ["Town", "London"])),
        must=("Name | Ada", "Age | 36", "Town | London"),
        never=("Ada: 36", "Name: Age"),
    )
    yield Sample(
        "dates-as-titles.xlsx",
        lambda: book(rows(["Product", "2024-01", "2024-02"], ["Bolt", 1, 2])),
        must=("Product: Bolt; 2024-01: 1; 2024-02: 2",),
    )
    yield Sample(
        "gap.xlsx",
        lambda: book(rows(["Name", "Age"], ["Ada", 36], None, ["Bob", 41], ["Cy", 52])),
        must=("Name: Ada; Age: 36", "Name: Bob; Age: 41", "Name: Cy; Age: 52"),
    )
    yield Sample(
        "side-by-side.xlsx",
        lambda: book(rows(["Name", "Age", None, "City", "People"], ["Ada", 36, None, "Lisbon", 545])),
        must=("Name: Ada; Age: 36; City: Lisbon; People: 545",),
    )
    yield Sample(
        "formula.xlsx",
        lambda: book(rows(["Sum", "Note"]) + '<row r="2"><c r="A2"><f>1+1</f></c><c r="B2"><f>2*2</f><v>4</v></c></row>'),
        must=("Sum", "4"),
        problem="formulas without a stored value",
    )
    yield Sample("formula-only.xlsx", lambda: book('<row r="1"><c r="A1"><f>A2&amp;"x"</f><v></v></c></row>'), problem="formulas")
    yield Sample(
        "kinds.xlsx",
        lambda: book(
            '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="C1" t="b"><v>1</v></c><c r="D1" t="e"><v>#N/A</v></c>'
            '<c r="E1" t="str"><f>x</f><v>told</v></c><c r="F1" s="1"><v>45355</v></c><c r="G1" s="2"><v>0.25</v></c>'
            '<c r="H1" s="3"><v>42</v></c><c r="I1"><v>0.30000000000000004</v></c><c r="J1" s="4"><v>45355.5</v></c></row>'
        ),
        must=("Shared | Rich | TRUE | #N/A | told | 2024-03-04 | 25% | 00042 | 0.3 | 2024-03-04 12:00:00",),
        never=("phonetic",),
    )
    yield Sample("strict.xlsx", lambda: strict(book(rows(["Part", "Count"], ["Bolt", 12]))), must=("Part: Bolt; Count: 12",))
    yield Sample(
        "hidden.xlsx", lambda: book(rows(["Seen", "row"]), rows(["Unseen", "code 9911"]), states="vh"), must=("code 9911",)
    )
    yield Sample(
        "macro.xlsm", lambda: book(rows(["a", "b"]), parts={"xl/vbaProject.bin": b"x"}), must=("a | b",), problem="macros"
    )
    comment = (
        f'{DECLARATION}<comments xmlns="{OFFICE}/spreadsheetml/2006/main"><commentList><comment ref="A1"><text><r><t>Ask Ada.</t></r>'
        "</text></comment></commentList></comments>"
    )
    drawn = (
        f'{DECLARATION}<xdr:wsDr xmlns:xdr="{OFFICE}/drawingml/2006/spreadsheetDrawing" {PREFIXES}><xdr:sp><xdr:txBody><a:p><a:r>'
        "<a:t>A boxed hint.</a:t></a:r></a:p></xdr:txBody></xdr:sp><c:chart r:id='rId1'/></xdr:wsDr>"
    )
    yield Sample(
        "beside.xlsx",
        lambda: book(
            rows(["a", "b"]),
            parts={
                "xl/comments1.xml": comment,
                "xl/drawings/d.xml": drawn,
                "xl/drawings/_rels/d.xml.rels": relationships(("chart", "../charts/c.xml")),
                "xl/charts/c.xml": CHART,
            },
            related=(("comments", "../comments1.xml"), ("drawing", "../drawings/d.xml")),
        ),
        must=("Ask Ada.", "A boxed hint.", "Sales by region"),
    )
    yield Sample("far.xlsx", lambda: book('<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576" t="inlineStr"><is>'
                 "<t>far away</t></is></c></row>"), must=("far away",))  # fmt: skip
    yield Sample(
        "beside.xlsb", lambda: binary_book(["a", "b"], parts={"xl/comments1.bin": b""}), must=("a | b",), problem="comments"
    )
    yield Sample("binary.xlsb", lambda: binary_book(["Part", "Count"], ["Bolt", 12.0]), must=("Part: Bolt; Count: 12",))
    yield Sample("no-references.xlsx", lambda: book("<row><c t='inlineStr'><is><t>left</t></is></c><c><v>7</v></c></row>"),
                 must=("left | 7",))  # fmt: skip
    main = f'xmlns="{OFFICE}/spreadsheetml/2006/main"'
    text = '<row r="1"><c r="A1" t="inlineStr"><is>{}</is></c></row>'
    yield Sample("escapes.xlsx", lambda: book(text.format("<t>a_x005F_x000D_b c_x000B_d e_x2028_f</t>")),
                 must=("a_x000D_b c d e f",))  # fmt: skip
    raised = "<r><t>10</t></r><r><rPr><vertAlign val='superscript'/></rPr><t>6</t></r>"
    yield Sample("power.xlsx", lambda: book(text.format(raised)), must=("10^6",))
    for name, code, value, shown in (
        ("elapsed", "[h]:mm", "1.5", "36:00:00"),
        ("minutes", "[mm]:ss", "0.0625", "1:30:00"),
        ("percent", "#,##0.0%", "0.255", "25.5%"),
        ("percent-digits", "0.##%", "0.2557", "25.57%"),
        ("groups", "000\\-00\\-0000", "12345678", "012-34-5678"),
    ):
        styles = (
            f'{DECLARATION}<styleSheet {main}><numFmts><numFmt numFmtId="165" formatCode="{code}"/></numFmts><cellXfs>'
            '<xf numFmtId="165"/></cellXfs></styleSheet>'
        )
        yield Sample(
            f"format-{name}.xlsx",
            lambda value=value, styles=styles: book(  # type: ignore[misc]
                f'<row r="1"><c r="A1" s="0"><v>{value}</v></c></row>', parts={"xl/styles.xml": styles}
            ),
            must=(f"Sheet 1 {shown}",),
        )
    notes = (
        f"{DECLARATION}<comments {main}><commentList><comment ref='A1'><text><t>For older programs: New one.</t></text></comment>"
        "<comment ref='B1'><text><t>Old note.</t></text></comment></commentList></comments>"
    )
    threads = (
        f'{DECLARATION}<ThreadedComments xmlns="http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments">'
        '<threadedComment ref="A1"><text>New one.</text></threadedComment></ThreadedComments>'
    )
    yield Sample(
        "threads-and-notes.xlsx",
        lambda: book(
            rows(["a", "b"]),
            parts={"xl/comments1.xml": notes, "xl/threads1.xml": threads},
            related=(("comments", "../comments1.xml"), ("threadedComment", "../threads1.xml")),
        ),
        must=("Comment on B1: Old note.",),
        count={"New one.": 1},
    )
    headed = (
        f'{DECLARATION}<worksheet {main}><sheetData>{rows(["a", "b"])}</sheetData><headerFooter><oddHeader>&amp;L&amp;"Arial,Bold"'
        "&amp;12Contract&amp;R&amp;P</oddHeader><oddFooter>&amp;CBolts &amp;&amp; nuts</oddFooter></headerFooter></worksheet>"
    )
    yield Sample("headers.xlsx", lambda: book("", parts={"xl/worksheets/sheet1.xml": headed}), must=("Contract", "Bolts & nuts"))
