"""Request models of retrieval."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from api.schemas.requests.fields import Name, Query, RequestModel
from shared.documents.filters import parse_filter


class RetrievalOptions(RequestModel):
    """How passages are retrieved."""

    mode: Literal["vector", "keyword", "hybrid"] = "hybrid"
    filter: dict[str, Any] | None = Field(
        default=None,
        description='conditions on documents, such as {"metadata.year": {"gte": 2020}}: eq, ne, gt, gte, lt, lte, in, nin, and, or',
        examples=[{"metadata.year": {"gte": 2020}, "or": [{"page": 1}, {"name": {"ne": "draft.txt"}}]}],
    )
    threshold: (
        Annotated[float, Field(description="minimum score of a passage: its `rerank_score`, if it has one, else its `score`")]
        | None
    ) = None
    rerank: bool | Name | None = Field(
        default=None,
        description=(
            "rank the best 50 candidates with a reranker: true, the name of one, or false. By default, with the default reranker, if "
            "the server has one"
        ),
    )

    @field_validator("filter")
    @classmethod
    def _validate_filter(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            parse_filter(value)
        return value


class SearchRequest(RetrievalOptions):
    query: Query
    top_k: Annotated[int, Field(ge=1, le=100, description="number of passages")] = 5
    explain: bool = Field(
        default=False, description="report ranks and scores in each list, and how many chunks each step had and removed"
    )
    neighbours: Annotated[int, Field(ge=0, le=5, description="chunks before and after each hit to return with it")] = 0
