"""The requests that are being answered, as rows of arrays: a step over all of them is a few operations and no loop.

A request has a row from the step that ends its prompt to its last token. It knows neither the device nor the manager.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.gpu.engine.sampling import GREEDY, KEY, POSITION

Integers = NDArray[np.int32]


class DecodeBatch:
    """Room for ``most`` requests of up to ``pages`` pages each; pages nobody has point to ``spare``."""

    def __init__(self, most: int, pages: int, spare: int) -> None:
        self._spare = spare
        self.position = np.zeros(most, np.int32)
        """Tokens of each row whose keys and values are, or are about to be, in the cache."""
        self.left = np.zeros(most, np.int32)
        """New tokens that may still be asked of the device for a row."""
        self.token = np.zeros(most, np.int32)
        """The last token that has arrived; the device knows better while ``place`` is not -1."""
        self.place = np.full(most, -1, np.int32)
        """Where in the output of the step under way the row's next token is."""
        self.serial = np.zeros(most, np.int64)
        """Grows when the row is given up: what a step has for a row of another serial is nobody's."""
        self.table = np.full((most, pages), spare, np.int32)
        self.sampling = np.tile(np.array([[*GREEDY]], np.int32).T, (1, most))
        self.states: list[Any] = [None] * most
        self.stops: list[frozenset[int]] = [frozenset()] * most
        self._free = list(range(most - 1, -1, -1))
        self._row_of: dict[str, int] = {}
        self._order: list[int] = []
        self._active: NDArray[np.intp] | None = None
        self._stop_counts: dict[int, int] = {}
        self.table_of_nobody = np.full(pages, spare, np.int32)

    def __len__(self) -> int:
        """How many requests the next step is for."""
        return len(self._order)

    @property
    def free(self) -> int:
        """How many requests more there is room for."""
        return len(self._free)

    @property
    def active(self) -> NDArray[np.intp]:
        """The rows that the next step is for, in the order in which they joined."""
        if self._active is None:
            self._active = np.array(self._order, np.intp)
        return self._active

    @property
    def stop_tokens(self) -> Sequence[int]:
        """Every token that ends the answer of any row."""
        return list(self._stop_counts)

    def join(self, state: Any, pages: Sequence[int]) -> int:
        """Give a row to a request whose prompt ends in the step now prepared."""
        row = self._free.pop()
        self._row_of[state.request_id] = row
        self.states[row] = state
        self.position[row] = state.position_offset
        self.left[row] = state.max_new_tokens - 1
        self._set_pages(row, pages)
        self.sampling[:, row] = state.logit_processor_kwargs.get(KEY, GREEDY)[:POSITION]
        self.stops[row] = frozenset(state._eos_token_ids)
        for token in self.stops[row]:
            self._stop_counts[token] = self._stop_counts.get(token, 0) + 1
        if self.left[row] > 0:
            self._order.append(row)
            self._active = None
        return row

    def repage(self, request_id: str, pages: Sequence[int]) -> None:
        """The pages of a request have changed: it shares some of them now."""
        row = self._row_of.get(request_id)
        if row is not None:
            self._set_pages(row, pages)

    def _set_pages(self, row: int, pages: Sequence[int]) -> None:
        self.table[row, : len(pages)] = pages
        self.table[row, len(pages) :] = self._spare

    def advance(self) -> NDArray[np.intp]:
        """Count one more step for the active rows, and rest those that need no other; the rows that it is for."""
        rows = self.active
        self.position[rows] += 1
        self.left[rows] -= 1
        self.place.fill(-1)
        self.place[rows] = np.arange(len(rows), dtype=np.int32)
        if len(rows) and int(self.left[rows].min()) <= 0:
            self._order = [int(row) for row in rows if self.left[row] > 0]
            self._active = None
        return rows

    def drop(self, request_id: str) -> Any:
        """Give up the row of a request; its state, or None if it has no row."""
        row = self._row_of.pop(request_id, None)
        if row is None:
            return None
        state = self.states[row]
        self.states[row] = None
        self.serial[row] += 1
        for token in self.stops[row]:
            self._stop_counts[token] -= 1
            if not self._stop_counts[token]:
                del self._stop_counts[token]
        if self.left[row] > 0:
            self._order.remove(row)
            self._active = None
        self._free.append(row)
        return state
