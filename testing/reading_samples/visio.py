"""Visio drawings."""

from collections.abc import Iterator

from testing.reading_samples.package import DECLARATION, TYPES, Sample, packed

_VISIO = "http://schemas.microsoft.com/visio/2010/relationships"
_NAMES = (
    'xmlns="http://schemas.microsoft.com/office/visio/2012/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
)


def drawing(*pages: str, master: str = "", parts: dict[str, str | bytes] | None = None) -> bytes:
    """A drawing whose pages have these shapes, and whose master 2 has the shapes ``master``."""
    numbers = range(1, len(pages) + 1)
    listed = "".join(f'<Page ID="{number}" Name="Plan {number}"><Rel r:id="rId{number}"/></Page>' for number in numbers)
    types = TYPES.format('<Override PartName="/visio/document.xml" ContentType="application/vnd.ms-visio.drawing.main+xml"/>')
    return packed(
        {
            "[Content_Types].xml": DECLARATION + types,
            "_rels/.rels": _relationships(("document", "visio/document.xml")),
            "visio/document.xml": f"{DECLARATION}<VisioDocument {_NAMES}/>",
            "visio/_rels/document.xml.rels": _relationships(
                ("pages", "pages/pages.xml"), ("masters", "masters/masters.xml"), ("comments", "comments.xml")
            ),
            "visio/pages/pages.xml": f"{DECLARATION}<Pages {_NAMES}>{listed}</Pages>",
            "visio/pages/_rels/pages.xml.rels": _relationships(*(("page", f"page{number}.xml") for number in numbers)),
            **{
                f"visio/pages/page{number}.xml": f"{DECLARATION}<PageContents {_NAMES}><Shapes>{shapes}</Shapes></PageContents>"
                for number, shapes in zip(numbers, pages, strict=True)
            },
            "visio/masters/masters.xml": f'{DECLARATION}<Masters {_NAMES}><Master ID="2"><Rel r:id="rId1"/></Master></Masters>',
            "visio/masters/_rels/masters.xml.rels": _relationships(("master", "master1.xml")),
            "visio/masters/master1.xml": f"{DECLARATION}<MasterContents {_NAMES}><Shapes>{master}</Shapes></MasterContents>",
            **(parts or {}),
        }
    )


def _relationships(*entries: tuple[str, str]) -> str:
    items = "".join(
        f'<Relationship Id="rId{number}" Type="{_VISIO}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(entries, 1)
    )
    return f'{DECLARATION}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{items}</Relationships>'


def drawing_shape(text: str, x: float, y: float, *, attributes: str = "", inner: str = "") -> str:
    own = f"<Text>{text}</Text>" if text else ""
    return f"<Shape ID='9' {attributes}><Cell N='PinX' V='{x}'/><Cell N='PinY' V='{y}'/>{own}{inner}</Shape>"


def visio_samples() -> Iterator[Sample]:
    data = (
        "<Section N='Property'><Row N='r'><Cell N='Label' V='Pressure'/><Cell N='Value' V='4.5 bar'/></Row>"
        "<Row N='s'><Cell N='Label' V='Internal'/><Cell N='Value' V='hidden word'/><Cell N='Invisible' V='1'/></Row></Section>"
    )
    group = "<Shapes><Shape ID='12'><Text>Return line</Text></Shape><Shape ID='13' MasterShape='7'/></Shapes>"
    yield Sample(
        "plant.vsdx",
        lambda: drawing(
            drawing_shape("Drain", 1, 1)
            + drawing_shape("Boiler <cp IX='1'/>no. <fld IX='0'>7</fld>", 1, 9, inner=data)
            + drawing_shape("Chimney", 4, 9.05)
            + drawing_shape("", 1, 5, attributes="Master='2'", inner=group)
            + drawing_shape("Own words", 2, 5, attributes="Master='2'", inner="<Shapes/>"),
            drawing_shape("Second floor", 1, 1),
            master="<Shape ID='5'><Text>Pump</Text><Shapes><Shape ID='7'><Text>Valve</Text></Shape></Shapes></Shape>",
            parts={
                "visio/comments.xml": f"{DECLARATION}<Comments {_NAMES}><CommentList><CommentEntry PageID='2'>Check the stairs."
                "</CommentEntry></CommentList></Comments>"
            },
        ),
        must=(
            "Plan 1 Boiler no. 7 Pressure: 4.5 bar Chimney Pump Return line Valve Own words",
            "Drain Plan 2 Second floor Comment: Check the stairs.",
        ),
        never=("hidden word", "Own words Pump"),
        count={"Pump": 1, "Return line": 1, "Valve": 2},
    )
    yield Sample(
        "master-in-itself.vsdx",
        lambda: drawing(
            drawing_shape("", 1, 1, attributes="Master='2'"),
            master="<Shape ID='5'><Text>Pump</Text><Shapes><Shape ID='7' Master='2'/></Shapes></Shape>",
        ),
        must=("Plan 1 Pump",),
        count={"Pump": 2},
    )
    yield Sample(
        "damaged-page.vsdx",
        lambda: drawing(
            drawing_shape("Boiler", 1, 1), drawing_shape("Drain", 1, 1), parts={"visio/pages/page1.xml": "<PageContents"}
        ),
        must=("Plan 2 Drain",),
        problem="is damaged or missing from the file",
    )
