"""Hash embedder: vectors without a model. Texts that share words are near each other, and nothing else is known about them.

For tests of clients and for trials, as the echo engine is: it starts at once and needs no memory. The method is feature hashing
(Weinberger et al., 2009): a hash of each word selects a dimension and a sign.
"""

import math
import re
import zlib

from shared.errors import ModelUnavailable
from workers.index.prefixes import Prefixes, TextRole

SCHEME = "hash:"
LEAST_DIMENSIONS, MOST_DIMENSIONS = 8, 4096
MAX_TOKENS = 254
_WORD = re.compile(r"\w+")


class HashEmbedder:
    """An embedder for the url ``hash:DIMENSIONS``. A token is a word. Safe to share between threads."""

    def __init__(self, name: str, url: str, prefixes: Prefixes | None = None) -> None:
        """Raises ModelUnavailable if the url has no number of dimensions."""
        digits = url.removeprefix(SCHEME)
        if not digits.isascii() or not digits.isdigit() or not LEAST_DIMENSIONS <= int(digits[:6]) <= MOST_DIMENSIONS:
            raise ModelUnavailable(
                f"Model {name}: {url[:80]!r} must be {SCHEME} and a number of dimensions from {LEAST_DIMENSIONS} to {MOST_DIMENSIONS}, "
                f"such as {SCHEME}384."
            )
        self.model = name
        self.is_loaded = True
        self.dimensions = int(digits)
        self._prefixes = prefixes or Prefixes()
        self.revision = self._prefixes.identify(f"hash{self.dimensions}")

    def max_tokens(self, role: TextRole) -> int:
        return self._prefixes.reduce_limit(self.model, MAX_TOKENS, role, self.count_tokens)

    def count_tokens(self, text: str) -> int:
        return sum(1 for _ in _WORD.finditer(text))

    def embed_texts(self, texts: list[str], *, role: TextRole = "raw", shares: int = 1) -> list[list[float]]:
        """One vector of length 1 for each text. ``shares`` has no effect."""
        prefix = self._prefixes.of(role)
        return [self._embed(prefix + text) for text in texts]

    def _embed(self, text: str) -> list[float]:
        vector = [0.0] * self.dimensions
        for word in _WORD.findall(text.lower()):
            digest = zlib.crc32(word.encode("utf-8", "surrogatepass"))
            vector[(digest >> 1) % self.dimensions] += 1.0 if digest & 1 else -1.0
        length = math.sqrt(sum(value * value for value in vector))
        if not length:
            # A text without words; a vector of zeros has no direction, so it could not be compared.
            return [1.0, *vector[1:]]
        return [value / length for value in vector]
