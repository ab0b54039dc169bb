"""Response models of usage."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel


class UsageNumbers(ResponseModel):
    """Sums over jobs that have ended."""

    jobs: int = Field(description="jobs that ended, however they ended")
    prompt_tokens: int
    cached_tokens: int = Field(description="prompt tokens that were still in the KV cache, which are part of `prompt_tokens`")
    completion_tokens: int
    embedding_tokens: int = Field(description="tokens of texts that were embedded or reranked")
    gpu_seconds: float = Field(description="time of GPUs, shared by the requests that ran together")
    pages: int = Field(description="pages of documents that were read")
    bytes: int = Field(description="size of documents that were read")


class UsageEntry(UsageNumbers):
    """One group. It has the fields that the request groups by."""

    day: str | None = Field(None, examples=["2026-01-31"])
    owner: str | None = Field(None, examples=["local"])
    end_user: str | None = Field(None, description="null for jobs without one; `(other)` for those beyond a thousand on one day")
    model: str | None = Field(None, description="empty for jobs without a model")
    kind: str | None = Field(None, examples=["generate"])


class UsageReport(ResponseModel):
    """What was used from `since` to `until`, both included (UTC)."""

    object: Literal["usage"]
    since: str
    until: str
    group_by: list[str]
    data: list[UsageEntry]
    total: UsageNumbers
