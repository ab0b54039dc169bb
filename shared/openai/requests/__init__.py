"""Request models of ``/v1``: for each call of OpenAI's API, the fields that are used, and the rules for all others."""

from shared.openai.requests.batches import BatchRequest
from shared.openai.requests.chat import ChatCompletionRequest
from shared.openai.requests.completions import CompletionRequest
from shared.openai.requests.embeddings import EmbeddingRequest
from shared.openai.requests.field_rules import FieldRule, OpenAIRequest
from shared.openai.requests.responses import InputTokensRequest, ResponseRequest
from shared.openai.requests.tokenization import DetokenizeRequest, TokenizeRequest

__all__ = [
    "BatchRequest",
    "ChatCompletionRequest",
    "CompletionRequest",
    "DetokenizeRequest",
    "EmbeddingRequest",
    "FieldRule",
    "InputTokensRequest",
    "OpenAIRequest",
    "ResponseRequest",
    "TokenizeRequest",
]
