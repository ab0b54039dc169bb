"""Request model of ``POST /v1/batches``."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from shared.jobs.concurrency_fields import ConcurrencyFields
from shared.jobs.start_time import DESCRIPTION, StartTime, check_start_time, describe_start_time
from shared.openai.requests.field_rules import OpenAIRequest
from shared.openai.requests.sampling import Integer

SECONDS_OF_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
LONGEST_WINDOW = 30 * 24 * 3600
SHORTEST_EXPIRY, LONGEST_EXPIRY = 3600, 30 * 24 * 3600

Metadata = dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]]


class ExpiresAfter(BaseModel):
    """When a file expires."""

    model_config = ConfigDict(extra="ignore", strict=True)

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[Integer, Field(ge=SHORTEST_EXPIRY, le=LONGEST_EXPIRY)]


class BatchRequest(ConcurrencyFields, OpenAIRequest):
    """The body of ``POST /v1/batches``."""

    input_file_id: Annotated[str, StringConstraints(max_length=100)] = Field(
        description="a file with purpose `batch`: a JSON object on each line, with `custom_id`, `method` (POST), `url` and `body`"
    )
    endpoint: Annotated[str, StringConstraints(max_length=100)] = Field(
        description="the call that all requests make: `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` or `/v1/responses`"
    )
    completion_window: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,6}[smhd]$")] = Field(
        description="within which time the batch must end, such as `24h`; up to 30 days. Requests that have not ended by then expire"
    )
    metadata: Metadata | None = Field(default=None, max_length=16, description="returned with the batch, and kept with its job")
    output_expires_after: ExpiresAfter | None = Field(
        default=None, description="`seconds` after which the output files expire, 3,600 to 2,592,000; 30 days if omitted"
    )
    not_before: Annotated[StartTime, BeforeValidator(check_start_time)] | None = Field(
        default=None,
        description=f"when the batch may start at the earliest: {DESCRIPTION}. `completion_window` counts from then. Not in OpenAI's API",
        json_schema_extra=describe_start_time,
    )

    def window_seconds(self) -> int:
        """The completion window in seconds."""
        return int(self.completion_window[:-1]) * SECONDS_OF_UNIT[self.completion_window[-1]]
