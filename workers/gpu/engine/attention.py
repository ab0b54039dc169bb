"""Attention as the engine needs it: on the CPU each request by itself, on a GPU by pages, without what padding leaves behind.

On the CPU, transformers' own multiplies the keys and values of the whole batch and masks what belongs to others. A mask
stops numbers but not NaN, as NaN times zero is NaN: one spoilt request spoils all of them. By itself each request is less
work besides.
"""

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention
from transformers.modeling_utils import AttentionInterface


def register_cpu_attention() -> None:
    """Let every model of this process attend so. Only for the CPU: elsewhere the lengths would have to be waited for."""
    AttentionInterface.register("sdpa", attend)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What ``sdpa_attention_forward`` gives: (batch, queries, heads, size of a head)."""
    if cache is None or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, cache=cache, **kwargs)
    if kwargs.get("block_table") is not None:
        return _attend_by_pages(module, query, key, value, cache, kwargs), None
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    layout = _layout(tuple(kwargs.pop("cu_seq_lens_q").tolist()), tuple(kwargs.pop("cu_seq_lens_k").tolist()))
    if layout.places is not None and len(layout.rows) == query.shape[2]:
        return _side_by_side(module, query, key, value, attention_mask, layout, kwargs).transpose(0, 1), None
    answer = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    if layout.places is not None:
        answer[0, layout.rows] = _side_by_side(module, query, key, value, attention_mask, layout, kwargs)[:, 0]
    for rows, own in layout.apart:
        mask = attention_mask[..., rows, own]
        answer[:, rows] = sdpa_attention_forward(module, query[:, :, rows], key[:, :, own], value[:, :, own], mask, **kwargs)[0]
    return answer, None


@dataclass(frozen=True)
class _Layout:
    """Where the requests of a step lie in its rows and keys, as all its layers find them. Those in ``apart`` attend one by one;
    the others, with one query each at ``rows``, side by side, their keys at ``places``, of which some are ``beyond`` their own.
    """

    apart: list[tuple[slice, slice]]
    rows: Tensor
    places: Tensor | None
    flat: Tensor
    beyond: Tensor


# As many as one step has: layers that see everything, and layers with a window.
@lru_cache(maxsize=4)
def _layout(ends_q: tuple[int, ...], ends_k: tuple[int, ...]) -> _Layout:
    bounds = zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False)
    requests = [(slice(q, q_end), slice(k, k_end)) for q, q_end, k, k_end in bounds if q_end > q]
    generating = [own for row, own in requests if row.stop - row.start == 1]
    rows = torch.tensor([row.start for row, _ in requests if row.stop - row.start == 1])
    if len(generating) < 2:
        return _Layout(requests, rows, None, rows, rows)
    first, last = (torch.tensor(ends)[:, None] for ends in zip(*((own.start, own.stop - 1) for own in generating), strict=True))
    places = first + torch.arange(int((last - first).max()) + 1)
    apart = [request for request in requests if request[0].stop - request[0].start > 1]
    own_places = torch.minimum(places, last)
    return _Layout(apart, rows, own_places, own_places.flatten(), places > last)


def _side_by_side(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, layout: _Layout, kwargs: dict[str, Any]
) -> Tensor:
    """Requests with one query each, as a batch: for short contexts a call for each would cost several times as much.

    Shorter ones are filled up with their own last key, masked, so that none sees anything of another.
    """
    rows, places = layout.rows, layout.places
    assert places is not None
    fill: float = 0 if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    own_mask = mask[0, 0].index_select(0, rows).gather(1, places).masked_fill_(layout.beyond, fill)[:, None, None]
    own_query = query[0] if len(rows) == query.shape[2] else query[0].index_select(1, rows)
    own_key, own_value = (
        states[0].index_select(1, layout.flat).view(states.shape[1], *places.shape, -1).transpose(0, 1) for states in (key, value)
    )
    return sdpa_attention_forward(module, own_query.transpose(0, 1)[:, :, None], own_key, own_value, own_mask, **kwargs)[0]


def _attend_by_pages(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, cache: Any, kwargs: Any) -> Tensor:
    """A token for each request: its key and value are written into its last page, and its pages are read where they lie.

    Side by side too, each filled up with its own last key, masked.
    """
    cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    keys, values, tables = kwargs.pop("k_cache"), kwargs.pop("v_cache"), kwargs.pop("block_table").long()
    size, last = keys.shape[1], kwargs.pop("cu_seq_lens_k").diff().long()[:, None] - 1
    tables = tables[: len(last)]
    for cached, states in ((keys, key), (values, value)):
        cached[tables.gather(1, last // size)[:, 0], last[:, 0] % size] = states[0].transpose(0, 1)
    reach = torch.arange(int(last.max()) + 1)
    places = torch.minimum(reach, last)
    pages = tables.gather(1, places // size)
    own_keys, own_values = (cached[pages, places % size].transpose(1, 2) for cached in (keys, values))
    mask = torch.zeros(places.shape, dtype=query.dtype).masked_fill_(reach > last, torch.finfo(query.dtype).min)
    queries = query[0].transpose(0, 1)[:, :, None]
    return sdpa_attention_forward(module, queries, own_keys, own_values, mask[:, None, None], **kwargs)[0].transpose(0, 1)


def register_flash_attention(implementation: str) -> None:
    """Let every model of this process that runs on this FlashAttention attend as ``FlashAttention`` does here."""
    attend = torch.compiler.disable(FlashAttention(implementation).attend)  # type: ignore[no-untyped-call]
    AttentionInterface.register(implementation, attend)


class FlashAttention:
    """Transformers' way to FlashAttention with two changes, for models whose attention has no window, cap or sink.

    Answers: the positions of their tokens are what the kernel wants to know of the cache, so nothing is computed of it in
    every layer; and as the compiler need not look in here, it does not compile anew for each layer.

    Prompts: the kernel leaves rows that only pad the step as they were in memory. Were they NaN, they would become keys and
    values, and the last prompt's tile reaches over them: masked, but NaN times zero is NaN. So they are made zero.
    """

    def __init__(self, implementation: str) -> None:
        self._by_pages: Any = lazy_import_flash_attention(implementation)[0][2]
        names = inspect.signature(self._by_pages).parameters if self._by_pages is not None else {}
        self._table = "block_table" if "block_table" in names else "page_table"

    def attend(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        cache, table, positions = kwargs.get("cache"), kwargs.get("block_table"), kwargs.get("position_ids")
        plain = all(kwargs.get(name) is None for name in ("sliding_window", "softcap", "s_aux"))
        if cache is not None and table is not None and positions is not None and plain:
            return self._answers(module, query, key, value, cache, table, positions, kwargs.get("scaling")), None
        ends = kwargs.get("cu_seq_lens_q") if cache is not None and table is None else None
        answers, _ = flash_attention_forward(module, query, key, value, attention_mask, **kwargs)
        if ends is not None:
            padding = torch.arange(answers.shape[1], device=answers.device) >= ends[-1]
            answers = answers.masked_fill(padding[None, :, None, None], 0)
        return answers, None

    def _answers(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, cache: Any, table: Tensor, positions: Tensor, scaling: Any
    ) -> Tensor:
        allocator = cache.layer_to_allocator[module.layer_idx]
        keys, values = allocator.get_cache_for_block_table(module.layer_idx)
        q, k, v = (states[0].transpose(0, 1).unsqueeze(1) for states in (query, key, value))
        pages = {self._table: table[allocator.index]}
        answers = self._by_pages(
            q, keys, values, k=k, v=v, cache_seqlens=positions[0], softmax_scale=scaling, causal=True, **pages
        )
        answers = answers[0] if isinstance(answers, tuple) else answers
        flat: Tensor = answers.view(1, -1, *answers.shape[-2:])
        return flat
