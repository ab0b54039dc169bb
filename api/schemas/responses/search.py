"""What a search finds."""

from pydantic import Field

from api.schemas.responses.base import Answer, Page


class Beside(Answer):
    """A chunk before or after a hit."""

    position: int = Field(description="in the document, from 0")
    page: int
    start: int
    end: int
    headings: list[str]
    text: str


class Hit(Answer):
    """A passage that a search found."""

    document_id: str
    document: str
    chunk_id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f:0"])
    position: int = Field(description="of the chunk in the document, from 0")
    page: int
    start: int
    end: int
    headings: list[str] = Field(description="the titles that it stands under, outermost first")
    text: str
    score: float = Field(description="vector: a cosine; keyword: BM25; hybrid: 1 for what is first by both; higher is better")
    neighbours: list[Beside]


class HitList(Page[Hit]):
    pass
