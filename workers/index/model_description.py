"""Model description: what a process has to know about an embedding model to plan and count texts without its weights."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from workers.index.prefixes import Prefixes, TextRole

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """``revision`` is a digest of all that decides a vector, ``limit`` the longest text in tokens, ``tokenizer_json`` the tokenizer."""

    model: str
    revision: str
    dimensions: int
    limit: int
    prefixes: Prefixes
    tokenizer_json: str

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        # A copy without truncation, because the model's own tokenizer stops counting at its maximum.
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)


class DescribedEmbedder(ABC):
    """The part of an embedder that its model's description answers."""

    @abstractmethod
    def describe(self) -> ModelDescription:
        """The description, for which the model is loaded. Raises ModelUnavailable if it cannot be."""

    @property
    def revision(self) -> str:
        """Digest of weights, tokenizer and prefixes, because the same model name may later refer to others."""
        return self.describe().revision

    @property
    def dimensions(self) -> int:
        """Number of dimensions of a vector."""
        return self.describe().dimensions

    def max_tokens(self, role: TextRole) -> int:
        """Length of the longest text, in tokens and without its prefix, that the model does not truncate."""
        description = self.describe()
        return description.prefixes.reduce_limit(description.model, description.limit, role, description.count_tokens)

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens, without special tokens."""
        return self.describe().count_tokens(text)
