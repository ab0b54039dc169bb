"""Response models of API keys."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ListPage, ResponseModel
from api.schemas.responses.fields import Time


class ApiKey(ResponseModel):
    id: str = Field(examples=["key_01m84stetzyr7esggznw5rdjds"])
    object: Literal["api_key"]
    name: str
    owner: str
    prefix: str | None = Field(description="beginning of the key; null if the server knows only its SHA-256")
    scopes: list[str]
    models: list[str] | None = Field(description="the only models that it may use; null for all")
    collections: list[str] | None = Field(description="the only collections that it may use; null for all")
    requests_per_second: int | None
    limits: dict[str, int] = Field(
        description="token limits of this key, in addition to the owner's", examples=[{"tokens_per_day": 1000000}]
    )
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None = Field(description="up to a minute too early; null if it was never used")
    successor_of: str | None = Field(description="the key whose rotation created it")
    from_file: bool = Field(description="whether it comes from the keys file")


class ApiKeyWithSecret(ApiKey):
    secret: str = Field(description="the key itself, which cannot be shown again")


class ApiKeyList(ListPage[ApiKey]):
    pass
