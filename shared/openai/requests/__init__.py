"""Request models of ``/v1``: for each call of OpenAI's API, the fields that are used, and the rules for all others."""

from shared.openai.requests.batches import BatchRequest
from shared.openai.requests.chat import ChatCompletionRequest
from shared.openai.requests.completions import CompletionRequest
from shared.openai.requests.conversations import ConversationChanges, ConversationItemsRequest, ConversationRequest
from shared.openai.requests.embeddings import EmbeddingRequest
from shared.openai.requests.field_rules import FieldRule, OpenAIRequest
from shared.openai.requests.rerank import RerankRequest
from shared.openai.requests.responses import CompactRequest, InputTokensRequest, ResponseRequest
from shared.openai.requests.tokenization import DetokenizeRequest, TokenizeRequest
from shared.openai.requests.vector_stores import (
    AttributeChanges,
    FileBatchRequest,
    VectorStoreChanges,
    VectorStoreFileRequest,
    VectorStoreRequest,
    VectorStoreSearch,
)

__all__ = [
    "AttributeChanges",
    "BatchRequest",
    "ChatCompletionRequest",
    "CompactRequest",
    "CompletionRequest",
    "ConversationChanges",
    "ConversationItemsRequest",
    "ConversationRequest",
    "DetokenizeRequest",
    "EmbeddingRequest",
    "FieldRule",
    "FileBatchRequest",
    "InputTokensRequest",
    "OpenAIRequest",
    "RerankRequest",
    "ResponseRequest",
    "TokenizeRequest",
    "VectorStoreChanges",
    "VectorStoreFileRequest",
    "VectorStoreRequest",
    "VectorStoreSearch",
]
