"""The base class of request models, and field types that several of them use."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from shared.webhooks.ssrf import MAX_URL_LENGTH

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)]
Query = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
JobMetadata = dict[
    Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]
]


class RequestModel(BaseModel):
    """A JSON body. Unknown fields are rejected: a misspelt limit would otherwise be ignored silently."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
