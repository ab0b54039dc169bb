"""Response model of the caller's account."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ListPage, ResponseModel
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
    used: dict[str, int] = Field(
        description="how much of the limits is used now, for those that the server counts; `queued_jobs` of the fullest queue"
    )


AttentionCode = Literal[
    "jobs_failing", "limit_nearly_used", "collection_to_reindex", "webhook_disabled", "deliveries_failing",
    "disk_full", "data_warning", "dead_letters", "queue_paused", "queue_without_worker", "queue_drained", "model_failed", "gpu_memory_full", "gpu_error",
]  # fmt: skip


class AttentionSubject(ResponseModel):
    object: Literal["job", "limit", "collection", "webhook", "queue", "gpu"]
    id: str = Field(description="id or name; empty if it is about several objects")


class Attention(ResponseModel):
    """One thing that needs attention."""

    object: Literal["attention"]
    code: AttentionCode
    message: str = Field(description="for people")
    subject: AttentionSubject | None = Field(description="what it is about; null for the whole server")


class AttentionList(ListPage[Attention]):
    pass
