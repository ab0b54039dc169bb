"""KV-cache aware admission queue: admits a request to the batch only when the cache can hold it to its last token.

The space that a request may still need is reserved on admission, so no request is ever evicted and computed again. Not
thread-safe: the caller holds a lock.
"""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

# How many requests may overtake one that does not fit; after that, freed space is kept for it.
MAX_OVERTAKES = 256


@dataclass
class _QueuedRequest:
    id: str
    max_tokens: int
    prefix: Hashable | None
    overtaken: int = 0


class AdmissionQueue:
    """At most ``max_requests`` admitted requests, in a cache of ``num_sectors`` sectors.

    ``blocks_needed`` maps a length in tokens to blocks of each kind, and a sector holds ``blocks_per_sector`` of each kind.
    The prefix of a prompt is its first ``page_size`` tokens: while one request computes a prefix, others that begin with it
    wait for a step or two and then share its pages.
    """

    def __init__(
        self,
        max_requests: int,
        num_sectors: int,
        blocks_needed: Callable[[int], tuple[int, ...]],
        blocks_per_sector: tuple[int, ...],
        page_size: int,
    ) -> None:
        self._max_requests = max_requests
        self._num_sectors = num_sectors
        self._blocks_needed = blocks_needed
        self._blocks_per_sector = blocks_per_sector
        self._page_size = page_size
        self._queue: deque[_QueuedRequest] = deque()
        self._reserved: dict[str, tuple[int, ...]] = {}
        self._reserved_blocks = [0] * len(blocks_per_sector)
        self._computing: set[Hashable] = set()
        self._prefix_of: dict[str, Hashable] = {}

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def reserved_fraction(self) -> float:
        """The reserved fraction of the cache."""
        return self._sectors(self._reserved_blocks) / self._num_sectors

    def enqueue(self, id: str, prompt: Sequence[int], max_tokens: int, cache_salt: int = 0) -> None:
        """Add a request; ``max_tokens`` is the length that it may reach, prompt included."""
        prefix = hash((cache_salt, *prompt[: self._page_size])) if len(prompt) > self._page_size else None
        self._queue.append(_QueuedRequest(id, max_tokens, prefix))

    def admit(self) -> list[str]:
        """Admit the requests that fit, oldest first, except that a short one may overtake a long one for a while."""
        admitted: list[str] = []
        kept: deque[_QueuedRequest] = deque()
        blocked: list[_QueuedRequest] = []
        closed = False
        while self._queue and not closed and len(self._reserved) < self._max_requests:
            request = self._queue.popleft()
            if request.prefix is not None and request.prefix in self._computing:
                kept.append(request)
                continue
            blocks = self._blocks_needed(request.max_tokens)
            total = [reserved + more for reserved, more in zip(self._reserved_blocks, blocks, strict=True)]
            if self._sectors(total) > self._num_sectors:
                kept.append(request)
                blocked.append(request)
                closed = request.overtaken >= MAX_OVERTAKES
                continue
            for other in blocked:
                other.overtaken += 1
                closed = closed or other.overtaken >= MAX_OVERTAKES
            self._reserve(request, blocks)
            admitted.append(request.id)
        self._queue = kept + self._queue
        return admitted

    def prefill_done(self, id: str) -> None:
        """Make the prefix of a request available for sharing. Requests that wait for it move to the front."""
        prefix = self._prefix_of.pop(id, None)
        if prefix is not None:
            self._computing.discard(prefix)
            sharing = [request for request in self._queue if request.prefix == prefix]
            self._queue = deque([*sharing, *(request for request in self._queue if request.prefix != prefix)])

    def remove_request(self, id: str) -> None:
        """Remove a request, admitted or queued, and release its reservation."""
        self.prefill_done(id)
        blocks = self._reserved.pop(id, None)
        if blocks is not None:
            self._reserved_blocks = [reserved - fewer for reserved, fewer in zip(self._reserved_blocks, blocks, strict=True)]
        else:
            self._queue = deque(request for request in self._queue if request.id != id)

    def _reserve(self, request: _QueuedRequest, blocks: tuple[int, ...]) -> None:
        self._reserved[request.id] = blocks
        self._reserved_blocks = [reserved + more for reserved, more in zip(self._reserved_blocks, blocks, strict=True)]
        if request.prefix is not None:
            self._computing.add(request.prefix)
            self._prefix_of[request.id] = request.prefix

    def _sectors(self, blocks: Sequence[int]) -> int:
        return sum(-(-count // per_sector) for count, per_sector in zip(blocks, self._blocks_per_sector, strict=True))
