"""Field types that several response models use."""

from typing import Annotated, Literal

from pydantic import Field

Time = Annotated[float, Field(description="Unix seconds, with milliseconds")]
JobId = Annotated[str, Field(pattern=r"^job_[0-9a-hjkmnp-tv-z]{26}$", examples=["job_01m84stetzyr7esggznw5rdjds"])]
JobKind = Literal[
    "generate",
    "ingest",
    "search",
    "delete",
    "reindex",
    "unpack",
    "batch",
    "embed",
    "rerank",
    "tokenize",
    "draw",
    "fetch",
    "request_batch",
]
