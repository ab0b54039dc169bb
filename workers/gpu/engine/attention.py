"""Attention on the CPU, each request by itself.

Transformers' own multiplies the keys and values of the whole batch and masks what belongs to others. A mask stops numbers
but not NaN, as NaN times zero is NaN: one spoilt request spoils all of them. By itself each request is less work besides.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface


def isolate_requests() -> None:
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
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    ends_q, ends_k = kwargs.pop("cu_seq_lens_q").tolist(), kwargs.pop("cu_seq_lens_k").tolist()
    requests = [
        (slice(q, q_end), slice(k, k_end))
        for q, q_end, k, k_end in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False)
        if q_end > q
    ]
    answer = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    generating = [request for request in requests if request[0].stop - request[0].start == 1]
    if len(generating) > 1:
        _attend_side_by_side(module, query, key, value, attention_mask, generating, answer, kwargs)
        requests = [request for request in requests if request[0].stop - request[0].start > 1]
    for rows, own in requests:
        mask = attention_mask[..., rows, own]
        answer[:, rows] = sdpa_attention_forward(module, query[:, :, rows], key[:, :, own], value[:, :, own], mask, **kwargs)[0]
    return answer, None


def _attend_side_by_side(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    requests: list[tuple[slice, slice]],
    answer: Tensor,
    kwargs: dict[str, Any],
) -> None:
    """Requests with one query each, as a batch: for short contexts a call for each would cost several times as much.

    Shorter ones are filled up with their own last key, masked, so that none sees anything of another.
    """
    rows = torch.tensor([row.start for row, _ in requests])
    first = torch.tensor([own.start for _, own in requests])[:, None]
    last = torch.tensor([own.stop - 1 for _, own in requests])[:, None]
    places = first + torch.arange(max(own.stop - own.start for _, own in requests))
    beyond = places > last
    places = torch.minimum(places, last)
    fill: float = 0 if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    own_mask = mask[0, 0].index_select(0, rows).gather(1, places).masked_fill_(beyond, fill)[:, None, None]
    own_query = query[0].index_select(1, rows).transpose(0, 1)[:, :, None]
    own_key, own_value = (
        states[0].index_select(1, places.flatten()).view(states.shape[1], *places.shape, -1).transpose(0, 1)
        for states in (key, value)
    )
    own_answer = sdpa_attention_forward(module, own_query, own_key, own_value, own_mask, **kwargs)[0]
    answer[0, rows] = own_answer[:, 0]
