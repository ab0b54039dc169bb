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


class RankedScore(ResponseModel):
    rank: int = Field(description="from 1")
    score: float


class HitExplanation(ResponseModel):
    """Rank and score of a hit in each list of a search; null if the list lacks it, or the search had no such list."""

    vector: RankedScore | None = Field(description="by cosine similarity")
    keyword: RankedScore | None = Field(description="by BM25")
    fused: float | None = Field(description="the score of both lists together")
    rerank: RankedScore | None = Field(default=None, description="by the reranker")


class FilterPart(ResponseModel):
    condition: str = Field(examples=["metadata.year gte"])
    removed: int = Field(description="chunks that do not match it")


class RemovedChunks(ResponseModel):
    """Chunks that were left out, by reason."""

    filter: int = Field(description="do not match the whole filter")
    not_ready: int = Field(description="found, but the document is being read, replaced or deleted")
    threshold: int = Field(description="candidates below the threshold")


class RerankExplanation(ResponseModel):
    model: str
    candidates: int
    seconds: float
    applied: bool = Field(description="false if the reranker was unavailable")


class SearchExplanation(ResponseModel):
    """How many chunks each step of a search had and removed."""

    mode: Literal["vector", "keyword", "hybrid"]
    chunks: int = Field(description="in the index")
    lists: dict[str, int] = Field(description="length of each list", examples=[{"vector": 50, "keyword": 12}])
    candidates: int = Field(description="after the lists were fused")
    filter: list[FilterPart] = Field(description="the parts that must all match; a chunk may be counted in several")
    removed: RemovedChunks
    rerank: RerankExplanation | None = None


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
    rerank_score: float | None = Field(
        default=None, description="the reranker's score, from 0 to 1, which orders the hits; null without a reranker"
    )
    similarity: float | None = Field(
        default=None, description="cosine similarity of query and chunk; null for a hit that only the keyword search found"
    )
    neighbours: list[NeighbourChunk]
    source: Literal["text", "ocr"] = Field(default="text", description="`ocr` if some of the text was read from a picture")
    confidence: float | None = Field(default=None, description="of OCR, from 0 to 1: the mean of its lines; null for other text")
    explain: HitExplanation | None = Field(default=None, description="only with `explain`")


class HitList(ListPage[Hit]):
    warnings: list[str] = Field(
        description="why hits may be missing until the collection is reindexed, or why they were not reranked; usually empty"
    )
    explain: SearchExplanation | None = Field(default=None, description="only with `explain`")
