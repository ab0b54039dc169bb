"""Presentations."""

from collections.abc import Iterator

from testing.reading_samples.package import CHART, DECLARATION, DIAGRAM, MAIN, PREFIXES, TYPES, Sample, packed, relationships
from testing.reading_samples.word import strict


def deck(*slides: str, parts: dict[str, str | bytes] | None = None, related: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A presentation; ``related`` are the relationships of its first slide."""
    ids = "".join(f'<p:sldId id="{255 + number}" r:id="rId{number}"/>' for number in range(1, len(slides) + 1))
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": DECLARATION
        + TYPES.format(
            f'<Override PartName="/ppt/presentation.xml" ContentType="{MAIN.format("presentationml.presentation.main")}"/>'
            + "".join(
                f'<Override PartName="/ppt/slides/slide{number}.xml" ContentType="{MAIN.format("presentationml.slide")}"/>'
                for number in range(1, len(slides) + 1)
            )
            + f'<Override PartName="/ppt/slideLayouts/layout1.xml" ContentType="{MAIN.format("presentationml.slideLayout")}"/>'
        ),
        "_rels/.rels": relationships(("officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f"{DECLARATION}<p:presentation {PREFIXES}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relationships(
            *(("slide", f"slides/slide{number}.xml") for number in range(1, len(slides) + 1))
        ),
    }
    for number, shapes in enumerate(slides, 1):
        members[f"ppt/slides/slide{number}.xml"] = (
            f"{DECLARATION}<p:sld {PREFIXES}><p:cSld><p:spTree><p:nvGrpSpPr><p:cNvPr id='1' name=''/><p:cNvGrpSpPr/><p:nvPr/>"
            f"</p:nvGrpSpPr><p:grpSpPr/>{shapes}</p:spTree></p:cSld></p:sld>"
        )
    layout = ("slideLayout", "../slideLayouts/layout1.xml")
    for number in range(1, len(slides) + 1):
        members[f"ppt/slides/_rels/slide{number}.xml.rels"] = relationships(*(related if number == 1 else ()), layout)
    members["ppt/slideLayouts/layout1.xml"] = f"{DECLARATION}<p:sldLayout {PREFIXES}><p:cSld><p:spTree/></p:cSld></p:sldLayout>"
    return packed({**members, **(parts or {})})


def shape(text: str, *, number: int = 2, title: bool = False) -> str:
    """A shape whose paragraphs are ``text``, which may be markup."""
    kind = "<p:ph type='title'/>" if title else ""
    inner = text if text.startswith("<") else f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>"
    return (
        f"<p:sp><p:nvSpPr><p:cNvPr id='{number}' name='x'/><p:cNvSpPr/><p:nvPr>{kind}</p:nvPr></p:nvSpPr><p:spPr/>"
        f"<p:txBody><a:bodyPr/>{inner}</p:txBody></p:sp>"
    )


def _frame(content: str) -> str:
    return (
        "<p:graphicFrame><p:nvGraphicFramePr><p:cNvPr id='4' name='x'/><p:cNvGraphicFramePr/><p:nvPr/></p:nvGraphicFramePr>"
        f"<a:graphic><a:graphicData>{content}</a:graphicData></a:graphic></p:graphicFrame>"
    )


def _template(kind: str, shapes: str, attributes: str = "") -> str:
    return (
        f"{DECLARATION}<p:{kind} {PREFIXES} {attributes}><p:cSld><p:spTree><p:nvGrpSpPr/><p:grpSpPr/>{shapes}</p:spTree></p:cSld>"
        f"</p:{kind}>"
    )


def _templated(*slides: str, layout_attributes: str = "", first_attributes: str = "") -> bytes:
    """A presentation whose layout and master have prompts, text and a logo."""
    logo = "<p:pic><p:blipFill><a:blip r:embed='x'/></p:blipFill></p:pic>"
    number = "<a:p><a:fld id='{0}' type='slidenum'><a:t>(page number)</a:t></a:fld></a:p>"
    hidden = shape("Not shown at all.").replace("name='x'", "name='x' hidden='1'")
    parts: dict[str, str | bytes] = {
        "ppt/slideLayouts/layout1.xml": _template(
            "sldLayout", shape("Click to add title", title=True) + shape("Draft for review.") + hidden, layout_attributes
        ),
        "ppt/slideLayouts/_rels/layout1.xml.rels": relationships(("slideMaster", "../slideMasters/m.xml")),
        "ppt/slideMasters/m.xml": _template(
            "sldMaster", f"<p:grpSp>{shape('Trade secret of Foo.')}</p:grpSp>{shape('Draft for review.')}{logo}{shape(number)}"
        ),
    }
    if first_attributes:
        parts["ppt/slides/slide1.xml"] = _template("sld", slides[0], first_attributes)
    return deck(*slides, parts=parts)


def slide_samples() -> Iterator[Sample]:
    broken = "<a:p><a:r><a:t>{}</a:t></a:r><a:br/><a:r><a:t>{}</a:t></a:r></a:p>"
    cell = "<a:tc><a:txBody><a:bodyPr/>{}</a:txBody></a:tc>"
    yield Sample(
        "line-breaks.pptx",
        lambda: deck(
            shape(broken.format("Quarterly", "Report"), title=True)
            + shape(broken.format("ten percent", "Costs fell"), number=3)
            + _frame(f"<a:tbl><a:tr>{cell.format(broken.format('North', 'America'))}{cell.format('<a:p/>')}</a:tr></a:tbl>")
        ),
        must=("Quarterly Report", "ten percent Costs fell", "North America"),
    )
    yield Sample(
        "same-id.pptx",
        lambda: deck(shape("Contacts", title=True) + shape("Extension 4477.")),
        must=("Contacts", "Extension 4477."),
    )
    yield Sample(
        "groups.pptx", lambda: deck(f"<p:grpSp><p:grpSp>{shape('Grouped text.')}</p:grpSp></p:grpSp>"), must=("Grouped text.",)
    )
    yield Sample(
        "diagram.pptx",
        lambda: deck(
            _frame("<dgm:relIds r:dm='rId1'/>"),
            parts={"ppt/diagrams/data1.xml": DIAGRAM},
            related=(("diagramData", "../diagrams/data1.xml"),),
        ),
        must=("Escalate to the duty engineer",),
    )
    yield Sample(
        "chart.pptx",
        lambda: deck(
            _frame("<c:chart r:id='rId1'/>"), parts={"ppt/charts/c.xml": CHART}, related=(("chart", "../charts/c.xml"),)
        ),
        must=("Sales by region", "North", "41"),
    )
    notes = f"{DECLARATION}<p:notes {PREFIXES}><p:cSld><p:spTree>{shape('Speak slowly.')}</p:spTree></p:cSld></p:notes>"
    comments = f"{DECLARATION}<p:cmLst {PREFIXES}><p:cm><p:text>Check this figure.</p:text></p:cm></p:cmLst>"
    yield Sample(
        "notes.pptx",
        lambda: deck(
            shape("Shown."),
            parts={"ppt/notesSlides/n.xml": notes, "ppt/comments/c.xml": comments},
            related=(("notesSlide", "../notesSlides/n.xml"), ("comments", "../comments/c.xml")),
        ),
        must=("Shown.", "Speak slowly.", "Check this figure."),
    )
    yield Sample(
        "alternatives.pptx",
        lambda: deck(
            f"<mc:AlternateContent><mc:Choice Requires='a14'>{shape('Only once.')}</mc:Choice><mc:Fallback>{shape('Only once.')}"
            "</mc:Fallback></mc:AlternateContent>"
        ),
        count={"Only once.": 1},
    )
    never = ("Click to add", "(page number)", "Not shown at all.")
    once = {"Draft for review.": 1, "Trade secret of Foo.": 1}
    yield Sample(
        "templates.pptx",
        lambda: _templated(shape("First."), shape("Second.")),
        must=("First. Draft for review. Trade secret of Foo.", "Second."),
        never=never,
        count=once,
    )
    yield Sample(
        "hidden-master.pptx",
        lambda: _templated(shape("First."), layout_attributes="showMasterSp='0'"),
        must=("First. Draft for review.",),
        never=(*never, "Trade secret"),
    )
    yield Sample(
        "hidden-template.pptx",
        lambda: _templated(shape("First."), shape("Second."), first_attributes="showMasterSp='0'"),
        must=("Second. Draft for review. Trade secret of Foo.",),
        never=never,
        count=once,
    )
    yield Sample(
        "hidden-templates.pptx",
        lambda: _templated(shape("Alone."), first_attributes="showMasterSp='false'"),
        never=("Draft", "Trade secret"),
    )
    yield Sample(
        "picture-in-template.pptx",
        lambda: _templated("<p:pic><p:blipFill><a:blip r:embed='x'/></p:blipFill></p:pic>"),
        never=("Draft",),
    )
    yield Sample(
        "damaged-template.pptx",
        lambda: deck(shape("Still read."), parts={"ppt/slideLayouts/layout1.xml": "<p:sldLayout"}),
        must=("Still read.",),
        problem="damaged layout",
    )
    raised = "<a:p><a:r><a:t>10</a:t></a:r><a:r><a:rPr baseline='30000'/><a:t>6</a:t></a:r><a:r><a:t> cells</a:t></a:r></a:p>"
    yield Sample("power.pptx", lambda: deck(shape(raised)), must=("10^6 cells",))
    yield Sample("macro.pptm", lambda: deck(shape("Starts at once."), parts={"ppt/vbaProject.bin": b"x"}), must=("Starts at once.",),
                 problem="macros")  # fmt: skip
    yield Sample("show.ppsx", lambda: deck(shape("A show.")), must=("A show.",))
    yield Sample("strict.pptx", lambda: strict(deck(shape("Drawn strictly."))), must=("Drawn strictly.",))
    yield Sample("picture.pptx", lambda: deck(shape("With a picture.") + "<p:pic><p:blipFill><a:blip r:embed='x'/></p:blipFill></p:pic>"),
                 must=("With a picture.",), problem="images")  # fmt: skip
    linked = CHART.replace(
        "<c:rich><a:p><a:r><a:t>Sales by region</a:t></a:r></a:p></c:rich>",
        "<c:strRef><c:strCache><c:pt idx='0'><c:v>Title from a cell</c:v></c:pt></c:strCache></c:strRef>",
    )
    axis = "<c:{0}><c:numRef><c:numCache><c:pt idx='0'><c:v>{1}</c:v></c:pt></c:numCache></c:numRef></c:{0}>"
    points = "".join(
        f"<c:ser>{axis.format('xVal', x)}{axis.format('yVal', y)}{axis.format('bubbleSize', size)}</c:ser>"
        for x, y, size in ((31, 11, 71), (32, 12, 72))
    )
    scatter = (
        f"{DECLARATION}<c:chartSpace {PREFIXES}><c:plotArea><c:bubbleChart>{points}</c:bubbleChart></c:plotArea></c:chartSpace>"
    )
    for name, chart, texts in (
        ("linked", linked, ("Title from a cell",)),
        ("scatter", scatter, ("31", "11", "71", "32", "12", "72")),
    ):
        yield Sample(
            f"chart-{name}.pptx",
            lambda chart=chart: deck(  # type: ignore[misc]
                _frame("<c:chart r:id='rId1'/>"), parts={"ppt/charts/c.xml": chart}, related=(("chart", "../charts/c.xml"),)
            ),
            must=texts,
        )
