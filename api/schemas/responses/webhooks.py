"""Webhooks, and what was delivered to them."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.base import Answer, JobId, Kind, Page, Time
from shared.webhooks.endpoints import Event


class Webhook(Answer):
    """An address that is told of its owner's jobs."""

    id: str = Field(examples=["whk_01m84sw1c2f0t7d5h3zq8m4n6p"])
    object: Literal["webhook"]
    url: str
    events: list[Event]
    job_kinds: list[Kind] = Field(description="of which jobs")
    description: str
    enabled: bool
    disabled_reason: str | None
    previous_secret_until: Time | None = Field(description="so long the secret before the rotation signs too")
    created_at: Time
    updated_at: Time


class WebhookWithSecret(Webhook):
    secret: str = Field(examples=["whsec_…"])


class WebhookSecret(Answer):
    object: Literal["webhook_secret"]
    secret: str = Field(examples=["whsec_…"])


class Try(Answer):
    """One POST of a delivery."""

    number: int
    worker: str
    started_at: Time
    ended_at: Time | None
    outcome: Literal["delivered", "failed", "lost"] | None = Field(description="null while it runs; lost when its worker died")
    status: int | None = Field(description="what was answered")
    latency: float | None = Field(description="seconds")
    answer: str = Field(description="the first 1,024 bytes")
    error: str | None


class Delivery(Answer):
    """Something told to a webhook; its id is the ``webhook-id`` of all its tries."""

    id: str = Field(examples=["dlv_01m84sw1c8a3c5e7f9b1d2e4f6"])
    object: Literal["delivery"]
    event: Event
    job: JobId
    webhook: str | None = Field(description="the kept one; null for that of the job itself")
    url: str
    status: Literal["pending", "delivered", "failed"]
    reason: str | None
    created_at: Time
    next_try_at: Time | None
    ended_at: Time | None
    tries: list[Try]


class WebhookList(Page[Webhook]):
    pass


class DeliveryList(Page[Delivery]):
    pass
