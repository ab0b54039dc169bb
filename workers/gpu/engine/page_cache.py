"""Page allocation of the KV cache: which pages each request holds, and which full pages later requests can share.

A full page is found again by the digest of all tokens from the start of its prompt to its end. It stays after its request until
the space is needed. Holds no tensors; not thread-safe.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SPARE_PAGE = 0
"""Never allocated: padding reads and writes it."""


@dataclass(frozen=True)
class Allocation:
    """Pages of one request, in order. The first ``shared`` of them are computed already."""

    pages: list[int]
    shared: int


class PageCache:
    """``num_pages`` pages of ``page_size`` tokens, one of which is the spare page."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.page_size = page_size
        self.capacity = num_pages - 1
        self._free = list(range(num_pages - 1, SPARE_PAGE, -1))
        self._users = [0] * num_pages
        self._page_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}
        self._unwritten: set[int] = set()
        # Held pages that may contain NaN, and have to be zeroed after their last request.
        self._poisoned: set[int] = set()
        # Pages that can be shared and have no user, in the order in which they are given up.
        self._unused: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Pages that can be allocated now."""
        return len(self._free) + len(self._unused)

    @property
    def used_fraction(self) -> float:
        """The fraction of the pages that requests hold."""
        return 1 - self.available / self.capacity

    @property
    def shareable(self) -> int:
        """Pages that can be found again, whether or not a request holds them."""
        return len(self._page_of) - len(self._unwritten)

    def pages_for(self, tokens: int) -> int:
        """How many pages hold this many tokens."""
        return -(-tokens // self.page_size)

    def digests(self, tokens: Sequence[int], salt: int, known: Sequence[bytes] = ()) -> list[bytes]:
        """A digest for each full page of ``tokens``. ``known`` are those of its first pages."""
        result = list(known)
        digest = result[-1] if result else salt.to_bytes(8, "little", signed=True)
        size = self.page_size
        for page in range(len(result), len(tokens) // size):
            content = np.asarray(tokens[page * size : (page + 1) * size], np.int32).tobytes()
            digest = hashlib.blake2b(content, digest_size=16, key=digest).digest()
            result.append(digest)
        return result

    def allocate(self, digests: Sequence[bytes], tokens: int) -> Allocation | None:
        """Pages for a request that may grow to ``tokens`` tokens, or None if too few are available.

        ``digests`` are those of the full pages of its prompt without the last token, which has to be computed in any case.
        """
        shared = self._find_shared(digests)
        new = self.pages_for(tokens) - len(shared)
        if new > self.available - sum(page in self._unused for page in shared):
            return None
        for page in shared:
            self._unused.pop(page, None)
            self._users[page] += 1
        pages = [*shared, *(self._take_page() for _ in range(new))]
        for page, digest in zip(pages[len(shared) :], digests[len(shared) :], strict=False):
            if digest not in self._page_of:
                self._register(page, digest)
                self._unwritten.add(page)
        return Allocation(pages, len(shared))

    def is_being_computed(self, digests: Sequence[bytes]) -> bool:
        """Whether another request is about to write the next page that these digests could share."""
        found = len(self._find_shared(digests))
        return found < len(digests) and self._page_of.get(digests[found]) in self._unwritten

    def mark_written(self, pages: Sequence[int]) -> None:
        """Make pages shareable, once the step that fills them is scheduled: steps run in order."""
        self._unwritten.difference_update(pages)

    def share_output(self, pages: Sequence[int], digests: Sequence[bytes]) -> None:
        """Make the first pages of a request shareable, prompt and output: the next turn of a conversation begins with them."""
        for page, digest in zip(pages, digests, strict=False):
            if page in self._poisoned:
                break
            if page not in self._digest_of and digest not in self._page_of:
                self._register(page, digest)

    def release(self, pages: Sequence[int], *, poisoned: bool = False) -> list[int]:
        """End the use of these pages. Shareable ones stay until their space is needed, the ends of prompts go first.

        Nobody may share pages that are ``poisoned``, which may contain NaN. Returns pages that have to be zeroed: of a poisoned
        request, except those that others hold, and those that an earlier one has left to this one.
        """
        if poisoned:
            self._poisoned.update(pages)
            for page in pages:
                self._unregister(page)
        zeroed = []
        for page in reversed(pages):
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._unwritten:
                self._unregister(page)
            if page in self._digest_of:
                self._unused[page] = None
            else:
                self._free.append(page)
            if page in self._poisoned:
                self._poisoned.remove(page)
                zeroed.append(page)
        return zeroed

    def _find_shared(self, digests: Sequence[bytes]) -> list[int]:
        shared = []
        for digest in digests:
            page = self._page_of.get(digest)
            if page is None or page in self._unwritten:
                break
            shared.append(page)
        return shared

    def _take_page(self) -> int:
        if not self._free:
            page, _ = self._unused.popitem(last=False)
            self._unregister(page)
            self._free.append(page)
        page = self._free.pop()
        self._users[page] = 1
        return page

    def _register(self, page: int, digest: bytes) -> None:
        self._page_of[digest] = page
        self._digest_of[page] = digest

    def _unregister(self, page: int) -> None:
        digest = self._digest_of.pop(page, None)
        if digest is not None:
            del self._page_of[digest]
        self._unwritten.discard(page)
        self._unused.pop(page, None)
