"""The Python client of Enginehouse: LLM jobs, streams, documents, chats and webhooks."""

from enginehouse_client import webhooks
from enginehouse_client.client import AsyncChatSession, AsyncClient, ChatSession, Client
from enginehouse_client.errors import (
    APIError,
    Conflict,
    ConnectionFailed,
    EnginehouseError,
    Forbidden,
    InvalidRequest,
    InvalidSignature,
    JobFailed,
    NotFound,
    RateLimited,
    Timeout,
    Unauthorized,
    Unavailable,
)
from enginehouse_client.events import Event
from enginehouse_client.exchange import Patience
from enginehouse_client.jobs import Message, Options
from enginehouse_client.records import (
    Attempt,
    Citation,
    Collection,
    Document,
    Health,
    Hit,
    Ingestion,
    Job,
    Model,
    Progress,
    Rejected,
    Turn,
)

__all__ = [
    "APIError",
    "AsyncChatSession",
    "AsyncClient",
    "Attempt",
    "ChatSession",
    "Citation",
    "Client",
    "Collection",
    "Conflict",
    "ConnectionFailed",
    "Document",
    "EnginehouseError",
    "Event",
    "Forbidden",
    "Health",
    "Hit",
    "Ingestion",
    "InvalidRequest",
    "InvalidSignature",
    "Job",
    "JobFailed",
    "Message",
    "Model",
    "NotFound",
    "Options",
    "Patience",
    "Progress",
    "RateLimited",
    "Rejected",
    "Timeout",
    "Turn",
    "Unauthorized",
    "Unavailable",
    "webhooks",
]
