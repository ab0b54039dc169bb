"""Response models of ``/v1/files`` and ``/v1/batches``, in the forms of OpenAI's API."""

from typing import Generic, Literal, TypeVar

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel

Entry = TypeVar("Entry")


class OpenAIPage(ResponseModel, Generic[Entry]):
    """One page of a list; pass ``last_id`` as ``after`` to get the next page."""

    object: Literal["list"]
    data: list[Entry]
    first_id: str | None
    last_id: str | None
    has_more: bool


class OpenAIFile(ResponseModel):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None = Field(description="null for a file that stays until it is deleted")
    filename: str
    purpose: Literal["assistants", "batch", "batch_output", "fine-tune", "vision", "user_data", "evals"]
    status: Literal["processed"]
    status_details: None


class OpenAIFileList(OpenAIPage[OpenAIFile]):
    pass


class OpenAIFileDeletion(ResponseModel):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


class OpenAIBatchError(ResponseModel):
    code: str
    line: int | None = Field(description="number of the line in the input file, from 1")
    message: str
    param: str | None


class OpenAIBatchErrors(ResponseModel):
    object: Literal["list"]
    data: list[OpenAIBatchError]


class OpenAIBatchCounts(ResponseModel):
    total: int
    completed: int
    failed: int


class CachedTokens(ResponseModel):
    cached_tokens: int


class ReasoningTokens(ResponseModel):
    reasoning_tokens: int


class OpenAIBatchUsage(ResponseModel):
    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class OpenAIBatch(ResponseModel):
    """A request batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None = Field(description="of the first request")
    errors: OpenAIBatchErrors | None = Field(description="why a batch has failed, with the invalid lines of its input file")
    input_file_id: str
    completion_window: str
    status: Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: OpenAIBatchCounts
    usage: OpenAIBatchUsage
    metadata: dict[str, str] | None
    estimated_end_at: int | None = Field(description="when the last request will end, at the speed so far; null if it is unknown")
    not_before: int | None = Field(
        default=None, description="when it may start at the earliest; null unless it waits for that time"
    )
    job_id: str = Field(description="its job, for `/jobs/<job>` and its events")


class OpenAIBatchList(OpenAIPage[OpenAIBatch]):
    pass
