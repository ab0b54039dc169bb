"""Response model of the caller's account."""

from api.schemas.responses.envelopes import ResponseModel


class AccountKey(ResponseModel):
    id: str
    name: str


class Account(ResponseModel):
    """Who makes a request, and the limits of its owner by name; 0 is none."""

    owner: str
    admin: bool
    key: AccountKey | None
    limits: dict[str, int]
