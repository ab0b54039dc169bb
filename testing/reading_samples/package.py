"""What a sample is, and how Office files are put together."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field

DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
OFFICE = "http://schemas.openxmlformats.org"
NAMESPACES = {
    "w": f"{OFFICE}/wordprocessingml/2006/main",
    "a": f"{OFFICE}/drawingml/2006/main",
    "p": f"{OFFICE}/presentationml/2006/main",
    "r": f"{OFFICE}/officeDocument/2006/relationships",
    "m": f"{OFFICE}/officeDocument/2006/math",
    "mc": f"{OFFICE}/markup-compatibility/2006",
    "c": f"{OFFICE}/drawingml/2006/chart",
    "dgm": f"{OFFICE}/drawingml/2006/diagram",
    "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
    "v": "urn:schemas-microsoft-com:vml",
    "o": "urn:schemas-microsoft-com:office:office",
}
PREFIXES = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in NAMESPACES.items())
TYPES = (
    f'<Types xmlns="{OFFICE}/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-'
    'package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>{}</Types>'
)
MAIN = "application/vnd.openxmlformats-officedocument.{}+xml"


@dataclass(frozen=True)
class Sample:
    """A file. Every text of ``must`` is in what is read, with runs of white space as one space; none of ``never`` is; each of
    ``count`` occurs the given number of times. The problems of the document contain ``problem``."""

    name: str
    make: Callable[[], bytes]
    must: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    count: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def kind(self) -> str:
        return self.name.rpartition(".")[2]


def packed(members: dict[str, str | bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in members.items():
            package.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
    return target.getvalue()


def relationships(*entries: tuple[str, str]) -> str:
    """Relationships rId1, rId2 and so on, of these kinds and to these targets."""
    items = "".join(
        f'<Relationship Id="rId{number}" Type="{OFFICE}/officeDocument/2006/relationships/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(entries, 1)
    )
    return f'{DECLARATION}<Relationships xmlns="{OFFICE}/package/2006/relationships">{items}</Relationships>'


CHART = (
    f"{DECLARATION}<c:chartSpace {PREFIXES}><c:chart><c:title><c:tx><c:rich><a:p><a:r><a:t>Sales by region</a:t></a:r></a:p>"
    "</c:rich></c:tx></c:title><c:plotArea><c:barChart><c:ser><c:tx><c:strRef><c:strCache><c:pt idx='0'><c:v>Revenue</c:v></c:pt>"
    "</c:strCache></c:strRef></c:tx><c:cat><c:strRef><c:strCache><c:pt idx='0'><c:v>North</c:v></c:pt><c:pt idx='1'><c:v>South"
    "</c:v></c:pt></c:strCache></c:strRef></c:cat><c:val><c:numRef><c:numCache><c:pt idx='0'><c:v>41</c:v></c:pt><c:pt idx='1'>"
    "<c:v>17</c:v></c:pt></c:numCache></c:numRef></c:val></c:ser></c:barChart></c:plotArea></c:chart></c:chartSpace>"
)
DIAGRAM = (
    f"{DECLARATION}<dgm:dataModel {PREFIXES}><dgm:ptLst><dgm:pt modelId='1'><dgm:t><a:p><a:r><a:t>Escalate to the duty engineer"
    "</a:t></a:r></a:p></dgm:t></dgm:pt><dgm:pt modelId='2' type='pres'/></dgm:ptLst></dgm:dataModel>"
)
