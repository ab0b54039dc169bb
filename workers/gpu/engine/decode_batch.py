"""Requests that are decoding, as rows of arrays: a step over all of them is a few array operations instead of a loop.

A request has a row from the step that completes its prefill to its last token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]

INVALID_TOKEN = -1
"""Stands for a token that could not be chosen, because its largest logit is NaN or infinite."""

SAMPLING_FIELDS = 4
"""How many sampling parameters a request has; see ``sampling.encode_sampling``."""


@dataclass(frozen=True)
class DecodeRequest:
    """A request whose prefill is complete. ``state`` is the batching manager's record of it."""

    id: str
    length: int
    max_new_tokens: int
    sampling: tuple[int, ...]
    stop_token_ids: frozenset[int]
    state: Any = None


class DecodeBatch:
    """Rows for ``max_requests`` requests of up to ``max_pages`` pages each; unused pages point to ``spare_page``."""

    def __init__(self, max_requests: int, max_pages: int, spare_page: int) -> None:
        self._spare_page = spare_page
        self.position = np.zeros(max_requests, np.int32)
        """Tokens of each row whose keys and values are, or are about to be, in the cache."""
        self.remaining = np.zeros(max_requests, np.int32)
        """New tokens that the device may still be asked for."""
        self.last_token = np.zeros(max_requests, np.int32)
        """The last token that has arrived; the device has a newer one while ``output_index`` is not -1."""
        self.output_index = np.full(max_requests, -1, np.int32)
        """Index of the row's next token in the output of the step that is running."""
        self.serial = np.zeros(max_requests, np.int64)
        """Grows when the row is released: output for another serial is discarded."""
        self.block_table = np.full((max_requests, max_pages), spare_page, np.int32)
        self.padding_block_table = np.full(max_pages, spare_page, np.int32)
        self.sampling = np.zeros((SAMPLING_FIELDS, max_requests), np.int32)
        self.requests: list[DecodeRequest | None] = [None] * max_requests
        self._free = list(range(max_requests - 1, -1, -1))
        self._row_of: dict[str, int] = {}
        self._order: list[int] = []
        self._active: NDArray[np.intp] | None = None
        self._stop_counts: dict[int, int] = {}

    def __len__(self) -> int:
        """How many requests the next step decodes."""
        return len(self._order)

    @property
    def free_rows(self) -> int:
        """How many more requests fit."""
        return len(self._free)

    @property
    def active_rows(self) -> NDArray[np.intp]:
        """The rows that the next step decodes, in the order in which they were added."""
        if self._active is None:
            self._active = np.array(self._order, np.intp)
        return self._active

    @property
    def stop_token_ids(self) -> Sequence[int]:
        """Every token that ends the output of any row."""
        return list(self._stop_counts)

    def add_row(self, request: DecodeRequest, pages: Sequence[int]) -> int:
        """Give a row to a request whose prefill is completed by the step that is being prepared."""
        row = self._free.pop()
        self._row_of[request.id] = row
        self.requests[row] = request
        self.position[row] = request.length
        self.remaining[row] = request.max_new_tokens - 1
        self._set_row_pages(row, pages)
        self.sampling[:, row] = request.sampling
        for token in request.stop_token_ids:
            self._stop_counts[token] = self._stop_counts.get(token, 0) + 1
        if self.remaining[row] > 0:
            self._order.append(row)
            self._active = None
        return row

    def set_pages(self, request_id: str, pages: Sequence[int]) -> None:
        """Replace the pages of a request, which now shares some of them."""
        row = self._row_of.get(request_id)
        if row is not None:
            self._set_row_pages(row, pages)

    def _set_row_pages(self, row: int, pages: Sequence[int]) -> None:
        self.block_table[row, : len(pages)] = pages
        self.block_table[row, len(pages) :] = self._spare_page

    def advance(self) -> NDArray[np.intp]:
        """Count one more step for the active rows, deactivate those that need no other, and return the rows of this step."""
        rows = self.active_rows
        self.position[rows] += 1
        self.remaining[rows] -= 1
        self.output_index.fill(-1)
        self.output_index[rows] = np.arange(len(rows), dtype=np.int32)
        if len(rows) and int(self.remaining[rows].min()) <= 0:
            self._order = [int(row) for row in rows if self.remaining[row] > 0]
            self._active = None
        return rows

    def remove_request(self, request_id: str) -> bool:
        """Release the row of a request. Returns False if it has none."""
        row = self._row_of.pop(request_id, None)
        if row is None:
            return False
        request = self.requests[row]
        assert request is not None
        self.requests[row] = None
        self.serial[row] += 1
        for token in request.stop_token_ids:
            self._stop_counts[token] -= 1
            if not self._stop_counts[token]:
                del self._stop_counts[token]
        if self.remaining[row] > 0:
            self._order.remove(row)
            self._active = None
        self._free.append(row)
        return True
