"""Tokenizer interface, and the conversations that tokenizers encode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from workers.gpu.response_templates import ResponseTemplate

Message = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Input of a chat template. ``options`` are further variables of the template, such as ``enable_thinking``."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    forced_tool: str | None = None
    """The tool that must be called: its name, or empty for any one of them."""


@dataclass(frozen=True)
class EncodedChat:
    """The tokens of a conversation, and ``opening``, the part of the answer that they already contain, such as ``<think>``."""

    ids: list[int]
    opening: str = ""


class Tokenizer(Protocol):
    """Converts between text and token ids."""

    stop_token_ids: tuple[int, ...]
    vocabulary_size: int
    response_template: ResponseTemplate | None
    sampling_defaults: Mapping[str, Any]

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...
    def encode_chat(self, conversation: Conversation) -> EncodedChat: ...
    def decode(self, ids: Sequence[int], *, with_control_tokens: bool = False) -> str: ...
    def decode_answer(self, ids: Sequence[int]) -> str: ...
    def token_bytes(self, id: int) -> bytes: ...
    def split_control_tokens(self, text: str) -> Sequence[str | int]: ...
    def describe(self) -> dict[str, Any]: ...
