"""Attention on the CPU, request by request.

Transformers' own multiplies the keys and values of the whole batch and masks what belongs to others. A mask stops numbers
but not NaN, as NaN times zero is NaN: one spoilt request spoils all of them. Request by request it is less work besides.
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
    answers = []
    for q, q_end, k, k_end in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False):
        own = slice(k, k_end)
        mask = attention_mask[..., q:q_end, own]
        answers.append(sdpa_attention_forward(module, query[:, :, q:q_end], key[:, :, own], value[:, :, own], mask, **kwargs)[0])
    return torch.cat(answers, dim=1), None
