"""The base class of request models, and field types that several of them use."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from shared.documents.models import COLLECTION_NAME
from shared.jobs.start_time import StartTime, check_start_time
from shared.webhooks.ssrf import MAX_URL_LENGTH

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)]


def check_not_blank(value: str) -> str:
    """The value unchanged. Raises ValueError if it is white space alone."""
    if not value.strip():
        raise ValueError("must have more than white space")
    return value


def _check_collection_name(value: str) -> str:
    if COLLECTION_NAME.fullmatch(value) is None:
        raise ValueError("must be 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit")
    return value


# Its own check, as the message of a pattern would be the pattern.
CollectionName = Annotated[
    str, AfterValidator(_check_collection_name), Field(json_schema_extra={"pattern": f"^{COLLECTION_NAME.pattern}$"})
]
Query = Annotated[
    str,
    StringConstraints(min_length=1, max_length=20_000),
    AfterValidator(check_not_blank),
    Field(json_schema_extra={"pattern": r"\S"}),
]
JobMetadata = dict[
    Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]
]
NotBefore = Annotated[StartTime, BeforeValidator(check_start_time)]


class RequestModel(BaseModel):
    """A JSON body. Unknown fields are rejected: a misspelt limit would otherwise be ignored silently."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
