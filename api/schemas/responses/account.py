"""Response model of the caller's account."""

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel
from api.schemas.responses.fields import Time


class AccountKey(ResponseModel):
    id: str
    name: str
    expires_at: Time | None
    limits: dict[str, int] = Field(description="limits of this key, in addition to the owner's")


class AccountRights(ResponseModel):
    """What the key may do. null stands for all models or collections of the owner."""

    scopes: list[str]
    models: list[str] | None
    collections: list[str] | None


class Account(ResponseModel):
    """Who makes a request, and the limits of its owner by name; 0 is none."""

    owner: str
    admin: bool
    key: AccountKey | None
    rights: AccountRights
    limits: dict[str, int]
