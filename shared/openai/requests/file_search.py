"""Parts of requests that search vector stores: filters on attributes, and options of the ranking."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from shared.documents.filters import parse_filter
from shared.errors import InvalidValue
from shared.jobs.servable_models import ServableModels
from shared.openai.requests.sampling import Integer

OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin")
MAX_RESULTS = 50
MAX_STORES = 16
MAX_DEPTH = 8
NO_RANKER = "none"
# OpenAI's names of its rankers, which stand for the default one here.
DEFAULT_RANKERS = ("auto", "default")

StoreId = Annotated[str, StringConstraints(max_length=100)]
ResultCount = Annotated[Integer, Field(ge=1, le=MAX_RESULTS)]


def native_filter(value: Any, path: str = "filters", depth: int = 0) -> dict[str, Any]:
    """A filter of OpenAI's form in that of searches: ``{"type": "eq", "key": "year", "value": 2020}`` becomes
    ``{"metadata.year": {"eq": 2020}}``. Raises ValueError, which names the part.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{path} must be an object with type")
    kind = value.get("type")
    if kind in ("and", "or"):
        parts = value.get("filters")
        if not isinstance(parts, list) or not parts:
            raise ValueError(f"{path} of type {kind} needs a list of at least one filter in filters")
        if depth >= MAX_DEPTH:
            raise ValueError(f"{path} must not be nested more than {MAX_DEPTH} levels deep")
        return {str(kind): [native_filter(part, f"{path}.filters[{index}]", depth + 1) for index, part in enumerate(parts)]}
    if kind not in OPERATORS:
        raise ValueError(f"{path}.type must be one of {', '.join((*OPERATORS, 'and', 'or'))}")
    key = value.get("key")
    if not isinstance(key, str) or not key:
        raise ValueError(f"{path}.key must be the name of an attribute")
    if "value" not in value:
        raise ValueError(f"{path}.value is required")
    condition = {f"metadata.{key}": {str(kind): value["value"]}}
    try:
        parse_filter(condition, path)
    except InvalidValue as error:
        raise ValueError(error.message) from None
    return condition


def _check_filter(value: Any) -> Any:
    try:
        parse_filter(native_filter(value), "filters")  # the number of comparisons of all together
    except InvalidValue as error:
        raise ValueError(error.message) from None
    return value


FILTER_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"enum": [*OPERATORS, "and", "or"]},
        "key": {"type": "string"},
        "value": {},
        "filters": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["type"],
}
Filters = Annotated[dict[str, Any], BeforeValidator(_check_filter), WithJsonSchema(FILTER_SCHEMA)]


class HybridSearch(BaseModel):
    """Weights of the two halves of a search. Each is used, or is not."""

    model_config = ConfigDict(extra="ignore", strict=True)

    embedding_weight: Annotated[float, Field(ge=0)]
    text_weight: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _check_weights(self) -> "HybridSearch":
        if not self.embedding_weight and not self.text_weight:
            raise ValueError("one of the weights must be above 0")
        if self.embedding_weight and self.text_weight and self.embedding_weight != self.text_weight:
            raise ValueError("the weights must be equal, or one of them 0, as both rankings count alike here")
        return self

    @property
    def mode(self) -> Literal["vector", "keyword", "hybrid"]:
        if not self.text_weight:
            return "vector"
        return "hybrid" if self.embedding_weight else "keyword"


class RankingOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    ranker: Annotated[str, StringConstraints(max_length=100)] | None = None
    score_threshold: float | None = None
    hybrid_search: HybridSearch | None = None


def retrieval_spec(
    filters: Mapping[str, Any] | None, ranking: RankingOptions | None, top_k: int, models: ServableModels, param: str
) -> dict[str, Any]:
    """The part of a search's spec that these options ask for. ``param`` is the path of ``ranking``. Raises NotFound."""
    ranker = ranking.ranker if ranking else None
    rerank = False if ranker == NO_RANKER else None if ranker is None or ranker.startswith(DEFAULT_RANKERS) else ranker
    return {
        "reranker": models.find_search_reranker(rerank, f"{param}.ranker"),
        "mode": ranking.hybrid_search.mode if ranking and ranking.hybrid_search else "hybrid",
        "filter": None if filters is None else native_filter(filters),
        "threshold": (ranking and ranking.score_threshold) or None,
        "top_k": top_k,
    }
