"""Request models of the calls on API keys."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from api.schemas.requests.fields import RequestModel
from shared.owners.limits import HIGHEST
from shared.owners.store import MAX_OVERLAP_SECONDS
from shared.rights import MAX_NAME, MAX_NAMES
from shared.settings import KEY_LIMITS

# The store checks the pattern, with a readable error.
KeyName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=63),
    Field(json_schema_extra={"pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}),
]
Scope = Literal["generate", "documents", "chat", "search", "batches", "webhooks", "metrics", "admin"]
Names = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]], Field(max_length=MAX_NAMES)]
LATEST = 32503680000  # the year 3000


class KeyRights(RequestModel):
    """What a key may do, and until when."""

    scopes: list[Scope] | None = Field(
        default=None, min_length=1, description="null means every scope except `metrics` and `admin`"
    )
    models: Names | None = Field(default=None, description="exact names of the models that it may use; null for all")
    collections: Names | None = Field(default=None, description="exact names of the collections that it may use; null for all")
    expires_at: float | None = Field(default=None, gt=0, le=LATEST, description="Unix seconds; null for never")
    expires_in: float | None = Field(default=None, gt=0, le=100 * 365 * 86400, description="seconds, instead of `expires_at`")
    requests_per_second: int | None = Field(
        default=None, ge=1, le=1_000_000, description="limit of this key, in addition to the owner's limit for all keys"
    )
    limits: dict[str, Annotated[int, Field(ge=0, le=HIGHEST)] | None] | None = Field(
        default=None,
        max_length=len(KEY_LIMITS),
        description=(
            f"token limits of this key by name: {', '.join(KEY_LIMITS)}, in addition to the owner's. 0 or null removes one, and others "
            "stay unchanged"
        ),
    )

    @model_validator(mode="after")
    def check_expiry(self) -> Self:
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError("give expires_at or expires_in, not both")
        return self


class NewKey(KeyRights):
    name: KeyName
    owner: KeyName | None = Field(default=None, description="owner whose jobs and documents the key sees; `name` if omitted")


class KeyChanges(KeyRights):
    """Omitted fields stay unchanged."""

    name: KeyName | None = None


class KeyRotation(RequestModel):
    overlap: float = Field(
        default=86400, ge=0, le=MAX_OVERLAP_SECONDS, description="seconds until the old key expires; until then both are valid"
    )
