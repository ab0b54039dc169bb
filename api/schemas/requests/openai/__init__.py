"""Request models of ``/v1``: for each call of OpenAI's API, the fields that are used, and the rules for all others."""

from api.schemas.requests.openai.chat import ChatCompletionRequest
from api.schemas.requests.openai.completions import CompletionRequest
from api.schemas.requests.openai.embeddings import EmbeddingRequest
from api.schemas.requests.openai.field_rules import FieldRule, OpenAIRequest
from api.schemas.requests.openai.tokenization import DetokenizeRequest, TokenizeRequest

__all__ = [
    "ChatCompletionRequest",
    "CompletionRequest",
    "DetokenizeRequest",
    "EmbeddingRequest",
    "FieldRule",
    "OpenAIRequest",
    "TokenizeRequest",
]
