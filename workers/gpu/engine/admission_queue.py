"""Which requests the batch gets, and which wait inside the engine: those that the cache could not hold to their very end.

What a request may still need is set aside when it goes in, so that nothing is ever evicted and computed again. It knows
neither torch nor threads; the caller holds a lock.
"""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

# How many requests may go past one that the cache has no room for; after that the room is left to gather.
MAX_OVERTAKES = 256


@dataclass
class _Waiting:
    number: str
    prompt: Sequence[int]
    tokens: int
    head: Hashable | None
    passed: int = 0


class AdmissionQueue:
    """``most`` requests at once. ``room`` is how many sectors the cache has, ``cost`` how many blocks of each kind a length takes.

    ``per_sector`` is how many blocks of each kind a sector holds. A prompt's head is its first ``page`` tokens: while one
    request reads a head, others that begin with it wait for a step or two and then share its pages.
    """

    def __init__(
        self, most: int, room: int, cost: Callable[[int], tuple[int, ...]], per_sector: tuple[int, ...], page: int
    ) -> None:
        self._most = most
        self._room = room
        self._cost = cost
        self._per_sector = per_sector
        self._page = page
        self._waiting: deque[_Waiting] = deque()
        self._taken: dict[str, tuple[int, ...]] = {}
        self._used = [0] * len(per_sector)
        self._reading: dict[Hashable, str] = {}
        self._head_of: dict[str, Hashable] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def used(self) -> float:
        """The fraction of the cache that is set aside."""
        return self._sectors(self._used) / self._room

    def add(self, number: str, prompt: Sequence[int], tokens: int) -> None:
        """Let a request wait; ``tokens`` is the length that it may reach."""
        head = hash(tuple(prompt[: self._page])) if len(prompt) > self._page else None
        self._waiting.append(_Waiting(number, prompt, tokens, head))

    def admit(self) -> list[str]:
        """The requests whose turn it is, the oldest first, save that a short one may pass a long one for a while."""
        admitted: list[str] = []
        kept: deque[_Waiting] = deque()
        blocked: list[_Waiting] = []
        closed = False
        while self._waiting and not closed and len(self._taken) < self._most:
            one = self._waiting.popleft()
            if one.head is not None and one.head in self._reading:
                kept.append(one)
                continue
            need = self._cost(one.tokens)
            if self._sectors([used + more for used, more in zip(self._used, need, strict=True)]) > self._room:
                kept.append(one)
                blocked.append(one)
                closed = one.passed >= MAX_OVERTAKES
                continue
            for other in blocked:
                other.passed += 1
                closed = closed or other.passed >= MAX_OVERTAKES
            self._take(one, need)
            admitted.append(one.number)
        self._waiting = kept + self._waiting
        return admitted

    def began(self, number: str) -> None:
        """The prompt of a request has been read, so its head may be shared. What waits for that goes to the front."""
        head = self._head_of.pop(number, None)
        if head is not None and self._reading.pop(head, None) is not None:
            alike = [one for one in self._waiting if one.head == head]
            self._waiting = deque([*alike, *(one for one in self._waiting if one.head != head)])

    def ended(self, number: str) -> None:
        """A request is gone, wherever it was."""
        self.began(number)
        need = self._taken.pop(number, None)
        if need is not None:
            self._used = [used - less for used, less in zip(self._used, need, strict=True)]
        else:
            self._waiting = deque(one for one in self._waiting if one.number != number)

    def _take(self, one: _Waiting, need: tuple[int, ...]) -> None:
        self._taken[one.number] = need
        self._used = [used + more for used, more in zip(self._used, need, strict=True)]
        if one.head is not None:
            self._reading[one.head] = one.number
            self._head_of[one.number] = one.head

    def _sectors(self, blocks: Sequence[int]) -> int:
        return sum(-(-count // per) for count, per in zip(blocks, self._per_sector, strict=True))
