"""Input and output buffers of one step on the host, as arrays over the memory of the batching manager's tensors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.gpu.engine.decode_batch import SAMPLING_FIELDS, DecodeBatch


class HostBuffers:
    """``io`` are the manager's buffers of one step, ``sampling`` the part of them that the logits processors read."""

    def __init__(self, io: Any, sampling: Any) -> None:
        self.io = io
        self.output = io.output_ids[0].numpy()
        self._ids = io.input_ids.numpy()
        self._positions = io.position_ids.numpy()
        self._ends_q = io.cumulative_seqlens_q.numpy()
        ((self._layers, ends_k),) = io.cumulative_seqlens_k.items()
        self._ends_k = ends_k.numpy()
        self._indices = io.logits_indices.numpy()
        self._carried = io.carry_over_ids.numpy()
        self._sampling = sampling.numpy()
        self._table = io.block_table[0].numpy()
        self._count = np.arange(len(self._ends_q), dtype=np.int32)

    def fill_prefill(self, requests: list[Any], processors: Any, tokens: int, cache_read: int, *, padded: bool) -> None:
        """A prefill step of the manager's requests, padded to these numbers of tokens."""
        io = self.io
        io.prepare_batch_tensors(requests, processors, False, tokens, cache_read, padded)
        # Assume a longest prompt of all the tokens, so that each padded size has one graph.
        if padded and not cache_read:
            io.max_length_k = dict.fromkeys(io.max_length_k, tokens)
        io.carry_over_ids.fill_(-1)

    def fill_decode(self, batch: DecodeBatch, active: NDArray[np.intp], output_indices: NDArray[np.int32], padded: int) -> None:
        """A decode step: one token for each of the ``active`` rows. Padding requests have one token each on the spare page."""
        io, real, count = self.io, len(active), self._count
        lengths = batch.position[active]
        io.use_block_table = True
        io.num_q_tokens, io.max_kv_read, io.num_request_in_batch = padded, 0, padded
        io.true_read_sizes, io.true_write_sizes = [0], [padded]
        io.max_length_q, io.max_length_k = 1, {self._layers: 1}
        io.total_seqlen_q = padded
        io.requests_in_batch, io.req_id_to_new_token_position = [], {}
        self._ids[:real] = batch.last_token[active]
        # Invalid tokens are in the step after theirs too, and no embedding has a row for them.
        np.maximum(self._ids[:real], 0, out=self._ids[:real])
        self._positions[:real] = lengths - 1
        self._ends_q[: padded + 1] = count[: padded + 1]
        np.cumsum(lengths, out=self._ends_k[1 : real + 1])
        self._ends_k[0] = 0
        total = int(self._ends_k[real])
        self._indices[:padded] = count[:padded]
        self._carried[:real] = output_indices
        self._sampling[:SAMPLING_FIELDS, :real] = batch.sampling[:, active]
        self._sampling[SAMPLING_FIELDS, :real] = lengths
        pages = batch.block_table.shape[1]
        self._table[:real] = batch.block_table[active]
        if padded > real:
            self._ids[real:padded] = 0
            self._positions[real:padded] = 0
            self._ends_k[real + 1 : padded + 1] = total + count[1 : padded - real + 1]
            self._carried[real:padded] = -1
            self._sampling[:, real:padded] = 0
            self._table[real:padded, :pages] = batch.padding_block_table
        io.total_seqlen_k = {self._layers: total + padded - real}

    def fill_decode_padding(self, batch: DecodeBatch, size: int) -> None:
        """A decode step of padding only."""
        self.fill_decode(batch, np.zeros(0, np.intp), np.zeros(0, np.int32), size)

    def fill_prefill_padding(self, size: int, spare_index: int) -> None:
        """A prefill step of one padding prompt, which writes to ``spare_index`` of the cache."""
        io = self.io
        io.use_block_table = False
        io.num_q_tokens, io.max_kv_read, io.num_request_in_batch = size, 0, 1
        io.true_read_sizes, io.true_write_sizes = [0], [size]
        io.max_length_q, io.max_length_k = size, {self._layers: size}
        io.total_seqlen_q, io.total_seqlen_k = size, {self._layers: size}
        io.requests_in_batch, io.req_id_to_new_token_position = [], {}
        self._ids[:size] = 0
        self._positions[:size] = np.arange(size, dtype=np.int32)
        self._ends_q[0] = self._ends_k[0] = 0
        self._ends_q[1:] = self._ends_k[1:] = size
        self._indices[:] = 0
        self._carried[:size] = -1
        self._sampling[:] = 0
        io.write_index_storage[0, :size] = spare_index
