"""Request models of webhooks: of one job, and those registered for all jobs of an owner."""

from typing import Annotated, get_args

from pydantic import Field, StringConstraints

from api.schemas.requests.fields import RequestModel, Url
from shared.webhooks.endpoints import FINAL_EVENTS, KINDS, Event, Kind

Secret = Annotated[str, StringConstraints(max_length=200)]
Description = Annotated[str, StringConstraints(max_length=200)]

MAX_EVENTS = len(get_args(Event))
MAX_KINDS = len(get_args(Kind))


class JobWebhook(RequestModel):
    """Where to send the events of one job."""

    url: Url
    events: list[Event] = Field(default=list(FINAL_EVENTS), min_length=1, max_length=MAX_EVENTS)
    secret: Secret | None = None


class NewWebhook(RequestModel):
    """An address that receives the events of all the owner's jobs of these kinds."""

    url: Url
    events: list[Event] = Field(default=list(FINAL_EVENTS), min_length=1, max_length=MAX_EVENTS)
    job_kinds: list[Kind] = Field(default=list(KINDS), min_length=1, max_length=MAX_KINDS)
    description: Description = ""
    secret: Secret | None = None


class WebhookChanges(RequestModel):
    """Omitted fields keep their value."""

    url: Url | None = None
    events: list[Event] | None = Field(default=None, min_length=1, max_length=MAX_EVENTS)
    job_kinds: list[Kind] | None = Field(default=None, min_length=1, max_length=MAX_KINDS)
    description: Description | None = None
    enabled: bool | None = None
