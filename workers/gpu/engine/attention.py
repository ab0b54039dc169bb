"""Attention functions of the engine: per request on the CPU, over cache pages on a GPU, and never reading another request.

On the CPU, the function of transformers multiplies the keys and values of the whole batch and masks those of other requests.
A mask does not stop NaN, because NaN times zero is NaN: one poisoned request would poison all of them. Per request is also
less work.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention
from transformers.modeling_utils import AttentionInterface

from workers.gpu.engine.transformers_patches import defer_decode_update


def register_cpu_attention() -> None:
    """Use attention per request in every model of this process. Only for the CPU: a GPU would have to wait for the lengths."""
    AttentionInterface.register("sdpa", sdpa_attention_per_request)


def sdpa_attention_per_request(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Drop-in for ``sdpa_attention_forward``; returns (batch, queries, heads, head size)."""
    if attention_mask is None or kwargs.get("cu_seq_lens_k") is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if kwargs.get("block_table") is not None:
        return _attend_over_pages(module, query, key, value, kwargs), None
    layout = _layout(tuple(kwargs.pop("cu_seq_lens_q").tolist()), tuple(kwargs.pop("cu_seq_lens_k").tolist()))
    if layout.key_indices is not None and len(layout.rows) == query.shape[2]:
        return _attend_batched(module, query, key, value, attention_mask, layout, kwargs).transpose(0, 1), None
    output = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    if layout.key_indices is not None:
        output[0, layout.rows] = _attend_batched(module, query, key, value, attention_mask, layout, kwargs)[:, 0]
    for rows, keys in layout.separate:
        mask = attention_mask[..., rows, keys]
        output[:, rows] = sdpa_attention_forward(module, query[:, :, rows], key[:, :, keys], value[:, :, keys], mask, **kwargs)[0]
    return output, None


@dataclass(frozen=True)
class _Layout:
    """Where the requests of a step are among its rows and keys; the same for all layers.

    Those in ``separate`` attend one by one. The others, with one query each at ``rows``, attend as a batch with their keys
    at ``key_indices``, padded where ``is_padding``.
    """

    separate: list[tuple[slice, slice]]
    rows: Tensor
    key_indices: Tensor | None
    flat_key_indices: Tensor
    is_padding: Tensor


# As many as one step has: layers with full attention, and layers with a sliding window.
@lru_cache(maxsize=4)
def _layout(ends_q: tuple[int, ...], ends_k: tuple[int, ...]) -> _Layout:
    bounds = zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False)
    requests = [(slice(q, q_end), slice(k, k_end)) for q, q_end, k, k_end in bounds if q_end > q]
    decoding = [keys for row, keys in requests if row.stop - row.start == 1]
    rows = torch.tensor([row.start for row, _ in requests if row.stop - row.start == 1])
    if len(decoding) < 2:
        return _Layout(requests, rows, None, rows, rows)
    first, last = (torch.tensor(ends)[:, None] for ends in zip(*((keys.start, keys.stop - 1) for keys in decoding), strict=True))
    indices = first + torch.arange(int((last - first).max()) + 1)
    separate = [request for request in requests if request[0].stop - request[0].start > 1]
    own_indices = torch.minimum(indices, last)
    return _Layout(separate, rows, own_indices, own_indices.flatten(), indices > last)


def _attend_batched(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, layout: _Layout, kwargs: dict[str, Any]
) -> Tensor:
    """Attention of requests with one query each, as a batch: with short contexts a call for each costs several times more.

    A shorter request is padded with its own last key, masked, so that it reads nothing of another.
    """
    rows, indices = layout.rows, layout.key_indices
    assert indices is not None
    fill: float = 0 if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    own_mask = mask[0, 0].index_select(0, rows).gather(1, indices).masked_fill_(layout.is_padding, fill)[:, None, None]
    own_query = query[0] if len(rows) == query.shape[2] else query[0].index_select(1, rows)
    own_key, own_value = (
        states[0].index_select(1, layout.flat_key_indices).view(states.shape[1], *indices.shape, -1).transpose(0, 1)
        for states in (key, value)
    )
    return sdpa_attention_forward(module, own_query.transpose(0, 1)[:, :, None], own_key, own_value, own_mask, **kwargs)[0]


def _attend_over_pages(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, kwargs: Any) -> Tensor:
    """Decode attention: write each request's new key and value into its last page, and read its pages.

    Also as a batch, in which each request is padded with its own last key, masked.
    """
    keys, values, tables = kwargs.pop("k_cache"), kwargs.pop("v_cache"), kwargs.pop("block_table").long()
    page_size, last = keys.shape[1], kwargs.pop("cu_seq_lens_k").diff().long()[:, None] - 1
    tables = tables[: len(last)]
    for cached, states in ((keys, key), (values, value)):
        cached[tables.gather(1, last // page_size)[:, 0], last[:, 0] % page_size] = states[0].transpose(0, 1)
    reach = torch.arange(int(last.max()) + 1)
    indices = torch.minimum(reach, last)
    pages = tables.gather(1, indices // page_size)
    own_keys, own_values = (cached[pages, indices % page_size].transpose(1, 2) for cached in (keys, values))
    mask = torch.zeros(indices.shape, dtype=query.dtype).masked_fill_(reach > last, torch.finfo(query.dtype).min)
    queries = query[0].transpose(0, 1)[:, :, None]
    return sdpa_attention_forward(module, queries, own_keys, own_values, mask[:, None, None], **kwargs)[0].transpose(0, 1)


class FlashAttention:
    """FlashAttention of transformers with two changes, for models whose attention has no window, softcap or sink.

    Decode: the positions of the tokens are all that the kernel needs to know of the cache, so no layer computes anything
    about it, and the compiler skips this function, which it would otherwise compile for each layer.

    Prefill: the kernel leaves the rows that pad a step uninitialized. If they were NaN they would become keys and values, and
    the tile of the last prompt reaches over them: masked, but NaN times zero is NaN. So they are zeroed.
    """

    def __init__(self, implementation: str) -> None:
        self._attend_over_pages: Any = lazy_import_flash_attention(implementation)[0][2]
        parameters = inspect.signature(self._attend_over_pages).parameters if self._attend_over_pages is not None else {}
        self._table_name = "block_table" if "block_table" in parameters else "page_table"
        self._cache: Any = None
        self._update_cache: Callable[..., tuple[Tensor, Tensor]] | None = None

    def register_implementation(self, implementation: str) -> None:
        """Use this in every model of this process that runs on ``implementation``."""
        AttentionInterface.register(implementation, torch.compiler.disable(self.attend))  # type: ignore[no-untyped-call]

    def use_cache(self, cache: Any) -> None:
        """Read and write this cache in decode steps."""
        self._cache, self._update_cache = cache, defer_decode_update(cache)

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Drop-in for ``flash_attention_forward``."""
        table, positions = kwargs.get("block_table"), kwargs.get("position_ids")
        if table is not None:
            is_plain = all(kwargs.get(name) is None for name in ("sliding_window", "softcap", "s_aux"))
            if is_plain and positions is not None:
                return self._decode(module, query, key, value, table, positions, kwargs.get("scaling")), None
            assert self._update_cache is not None
            key, value = self._update_cache(key, value, module.layer_idx, kwargs)
        ends = kwargs.get("cu_seq_lens_q") if table is None else None
        output, _ = flash_attention_forward(module, query, key, value, attention_mask, **kwargs)
        if ends is not None:
            padding = torch.arange(output.shape[1], device=output.device) >= ends[-1]
            output = output.masked_fill(padding[None, :, None, None], 0)
        return output, None

    def _decode(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor, positions: Tensor, scaling: Any
    ) -> Tensor:
        allocator = self._cache.layer_to_allocator[module.layer_idx]
        keys, values = allocator.get_cache_for_block_table(module.layer_idx)
        q, k, v = (states[0].transpose(0, 1).unsqueeze(1) for states in (query, key, value))
        pages = {self._table_name: table[allocator.index]}
        output = self._attend_over_pages(
            q, keys, values, k=k, v=v, cache_seqlens=positions[0], softmax_scale=scaling, causal=True, **pages
        )
        output = output[0] if isinstance(output, tuple) else output
        flat: Tensor = output.view(1, -1, *output.shape[-2:])
        return flat
