"""Response models of webhooks and their deliveries."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ListPage, ResponseModel
from api.schemas.responses.fields import JobId, JobKind, Time
from shared.webhooks.endpoints import Event


class Webhook(ResponseModel):
    """A registered address that receives the events of its owner's jobs."""

    id: str = Field(examples=["whk_01m84sw1c2f0t7d5h3zq8m4n6p"])
    object: Literal["webhook"]
    url: str
    events: list[Event]
    job_kinds: list[JobKind] = Field(description="kinds of jobs whose events it receives")
    description: str
    enabled: bool
    disabled_reason: str | None
    previous_secret_until: Time | None = Field(description="until then, deliveries are also signed with the previous secret")
    created_at: Time
    updated_at: Time


class WebhookWithSecret(Webhook):
    secret: str = Field(examples=["whsec_…"])


class WebhookSecret(ResponseModel):
    object: Literal["webhook_secret"]
    secret: str = Field(examples=["whsec_…"])


class DeliveryAttempt(ResponseModel):
    """One POST of a delivery."""

    number: int
    worker: str
    started_at: Time
    ended_at: Time | None
    outcome: Literal["delivered", "failed", "lost"] | None = Field(description="null while it runs; lost if its worker died")
    status: int | None = Field(description="status of the response")
    latency: float | None = Field(description="seconds")
    answer: str = Field(description="first 1,024 bytes of the response")
    error: str | None


class Delivery(ResponseModel):
    """One event sent to one webhook. Its id is the ``webhook-id`` of every attempt."""

    id: str = Field(examples=["dlv_01m84sw1c8a3c5e7f9b1d2e4f6"])
    object: Literal["delivery"]
    event: Event
    job: JobId
    webhook: str | None = Field(description="id of the registered webhook; null for the webhook of the job")
    url: str
    status: Literal["pending", "delivered", "failed"]
    reason: str | None
    created_at: Time
    next_attempt_at: Time | None
    ended_at: Time | None
    attempts: list[DeliveryAttempt]


class WebhookList(ListPage[Webhook]):
    pass


class DeliveryList(ListPage[Delivery]):
    pass
