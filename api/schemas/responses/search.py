"""Response models of searches."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ListPage, ResponseModel


class NeighbourChunk(ResponseModel):
    """A chunk before or after a hit."""

    position: int = Field(description="in the document, from 0")
    page: int
    start: int
    end: int
    headings: list[str]
    text: str


class Hit(ResponseModel):
    """A passage that a search found."""

    document_id: str
    document: str
    chunk_id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f:0"])
    position: int = Field(description="of the chunk in the document, from 0")
    page: int
    start: int
    end: int
    headings: list[str] = Field(description="headings above it, outermost first")
    text: str
    score: float = Field(
        description="higher is better. vector: cosine similarity; keyword: BM25; hybrid: 1 for a hit that ranks first in both"
    )
    neighbours: list[NeighbourChunk]
    source: Literal["text", "ocr"] = Field(default="text", description="`ocr` if some of the text was read from a picture")
    confidence: float | None = Field(default=None, description="of OCR, from 0 to 1: the mean of its lines; null for other text")


class HitList(ListPage[Hit]):
    warnings: list[str] = Field(description="why hits may be missing until the collection is reindexed; usually empty")
