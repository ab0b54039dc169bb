"""Response models of usage."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel


class UsageNumbers(ResponseModel):
    """Sums over jobs that have ended."""

    jobs: int = Field(description="jobs that ended, whatever their status")
    prompt_tokens: int
    cached_tokens: int = Field(description="prompt tokens that were in the KV cache; `prompt_tokens` includes them")
    completion_tokens: int
    embedding_tokens: int = Field(description="tokens of embedded or reranked texts")
    gpu_seconds: float = Field(description="GPU time, shared by the requests that ran together")
    lost_seconds: float = Field(description="how long attempts ran whose worker died")
    pages: int = Field(description="pages read from documents")
    bytes: int = Field(description="size of the documents read")


class UsageEntry(UsageNumbers):
    """One group. It has the fields that the request groups by."""

    day: str | None = Field(None, examples=["2026-01-31"])
    owner: str | None = Field(None, examples=["local"])
    end_user: str | None = Field(None, description="null for jobs without one; `(other)` for those beyond a thousand on one day")
    model: str | None = Field(None, description="empty for jobs without a model")
    kind: str | None = Field(None, examples=["generate"])


class UsageReport(ResponseModel):
    """Usage from `since` to `until`, inclusive (UTC)."""

    object: Literal["usage"]
    since: str
    until: str
    group_by: list[str]
    data: list[UsageEntry]
    total: UsageNumbers
