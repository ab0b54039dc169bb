"""Prefixes of embedding models: many were trained with one text in front of queries and another in front of passages."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shared.errors import ModelUnavailable

# Room that a prefix must leave for the text.
MIN_TOKENS = 16

TextRole = Literal["raw", "query", "passage"]
"""What a text is for. A raw text has no prefix."""


@dataclass(frozen=True, kw_only=True)
class Prefixes:
    """Texts in front of queries and passages; None for the prompt in the model's own configuration."""

    query: str | None = None
    passage: str | None = None

    def of(self, role: TextRole) -> str:
        return {"raw": "", "query": self.query or "", "passage": self.passage or ""}[role]

    def reduce_limit(self, model: str, limit: int, role: TextRole, count_tokens: Callable[[str], int]) -> int:
        """The longest text, in tokens, that fits with its prefix into ``limit`` tokens. Raises ModelUnavailable if hardly any does."""
        rest = limit - count_tokens(self.of(role))
        if rest < MIN_TOKENS:
            raise ModelUnavailable(
                f"Model {model} reads at most {limit} tokens, and its prefix for a {role} leaves {max(0, rest)}. Shorten {role}_prefix."
            )
        return rest

    def identify(self, revision: str) -> str:
        """The revision of a model that is used with these prefixes."""
        if not self.query and not self.passage:
            return revision
        digest = hashlib.sha256(json.dumps([self.query or "", self.passage or ""]).encode()).hexdigest()
        return f"{revision}-{digest[:6]}"
