"""Concurrency keys as fields of requests."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, ValidationInfo, field_validator

from shared.jobs.submission import MAX_CONCURRENCY_KEY, MAX_CONCURRENCY_LIMIT

CONCURRENCY = {"concurrency_key", "concurrency_limit"}


class ConcurrencyFields(BaseModel):
    """The fields of a request that limit how many of its owner's jobs run at once."""

    concurrency_key: Annotated[str, StringConstraints(min_length=1, max_length=MAX_CONCURRENCY_KEY)] | None = Field(
        default=None,
        description="a name that you choose: of your jobs with the same one, at most `concurrency_limit` run at once",
    )
    concurrency_limit: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY_LIMIT)] | None = Field(
        default=None, description="1 if omitted; each job waits until fewer jobs of its key run than its own limit"
    )

    @field_validator("concurrency_limit")
    @classmethod
    def _require_key(cls, value: int | None, info: ValidationInfo) -> int | None:
        # The key is missing in the data if it is invalid itself, which is another error.
        if value is not None and info.data.get("concurrency_key", "") is None:
            raise ValueError("needs a concurrency_key")
        return value

    @property
    def concurrency(self) -> dict[str, Any]:
        """The fields of a submission with this key; empty if there is none."""
        if self.concurrency_key is None:
            return {}
        return {"concurrency_key": self.concurrency_key, "concurrency_limit": self.concurrency_limit or 1}
