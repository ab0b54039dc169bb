"""FlashAttention-3 as transformers expects it, over the kernels of another distribution, for machines without the hub.

Only for these benchmarks; ``install_flash.py`` copies it next to the library. That build reads pages but cannot append to
them, so each new key and value is written to its page first.
"""

from pathlib import Path

import torch
import triton
import triton.language as tl

torch.ops.load_library(str(Path(__file__).with_name("_vllm_fa3_C.abi3.so")))


def flash_attn_func(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0):
    """q: (batch, queries, heads, size). That build takes cumulative lengths only."""
    (batch, queries), keys = q.shape[:2], k.shape[1]
    ends_q, ends_k = (torch.arange(batch + 1, dtype=torch.int32, device=q.device) * length for length in (queries, keys))
    out = _forward(
        *(x.flatten(0, 1) for x in (q, k, v)),
        softmax_scale,
        causal,
        window_size,
        softcap,
        cu_seqlens_q=ends_q,
        cu_seqlens_k=ends_k,
        max_seqlen_q=queries,
        max_seqlen_k=keys,
    )
    return out.unflatten(0, (batch, queries))


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
):
    return _forward(
        q,
        k,
        v,
        softmax_scale,
        causal,
        window_size,
        softcap,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        max_seqlen_q=max_seqlen_q,
        max_seqlen_k=max_seqlen_k,
    )


def flash_attn_with_kvcache(
    q,
    k_cache,
    v_cache,
    k=None,
    v=None,
    cache_seqlens=None,
    page_table=None,
    cu_seqlens_q=None,
    max_seqlen_q=None,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    scheduler_metadata=None,
    num_splits=0,
):
    if k is not None:
        _append(k, v, k_cache, v_cache, cache_seqlens, page_table)
        cache_seqlens = cache_seqlens + 1
    return _forward(
        q,
        k_cache,
        v_cache,
        softmax_scale,
        causal,
        window_size,
        softcap,
        cu_seqlens_q=cu_seqlens_q,
        seqused_k=cache_seqlens,
        max_seqlen_q=max_seqlen_q,
        max_seqlen_k=page_table.shape[1] * k_cache.shape[1],
        page_table=page_table,
        plan=scheduler_metadata,
        num_splits=num_splits,
    )


def get_scheduler_metadata(
    batch_size,
    max_seqlen_q,
    max_seqlen_k,
    num_heads_q,
    num_heads_kv,
    headdim,
    cache_seqlens,
    qkv_dtype,
    headdim_v,
    cu_seqlens_q=None,
    page_size=None,
    causal=False,
    window_size=(-1, -1),
    has_softcap=False,
    num_splits=0,
):
    return torch.ops._vllm_fa3_C.get_scheduler_metadata(
        *(batch_size, max_seqlen_q, max_seqlen_k, num_heads_q, num_heads_kv, headdim, headdim_v, qkv_dtype, cache_seqlens),
        *(cu_seqlens_q, None, None, None, None, page_size, 0, causal, *window_size, has_softcap, num_splits, None, 0),
    )


def _forward(
    q,
    k,
    v,
    softmax_scale,
    causal,
    window_size,
    softcap,
    *,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    seqused_k=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    page_table=None,
    plan=None,
    num_splits=0,
):
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    out, *_ = torch.ops._vllm_fa3_C.fwd(
        *(q, k, v, None, None, None, None, cu_seqlens_q, cu_seqlens_k, None, None, seqused_k, max_seqlen_q, max_seqlen_k),
        *(page_table, None, None, None, None, None, None, None, None),
        *(softmax_scale or q.shape[-1] ** -0.5, causal, window_size[0], window_size[1], softcap, True, plan, num_splits),
        *(None, 0, None, 1, 0, None),
    )
    return out


@triton.jit
def _append_kernel(
    k,
    v,
    k_pages,
    v_pages,
    lengths,
    tables,
    k_row,
    k_head,
    v_row,
    v_head,
    page_stride,
    token_stride,
    table_stride,
    PAGE: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    at = tl.load(lengths + row)
    page = tl.load(tables + row * table_stride + at // PAGE).to(tl.int64)
    element = tl.arange(0, BLOCK)
    inside = element < HEADS * SIZE
    head, within = element // SIZE, element % SIZE
    target = page * page_stride + (at % PAGE) * token_stride + element
    tl.store(k_pages + target, tl.load(k + row * k_row + head * k_head + within, mask=inside), mask=inside)
    tl.store(v_pages + target, tl.load(v + row * v_row + head * v_head + within, mask=inside), mask=inside)


def _append(k, v, k_pages, v_pages, lengths, tables):
    """k, v: (requests, 1, heads, size); pages: (pages, tokens, heads, size), heads and sizes without gaps."""
    rows, _, heads, size = k.shape
    _append_kernel[(rows,)](
        *(k, v, k_pages, v_pages, lengths, tables, k.stride(0), k.stride(2), v.stride(0), v.stride(2)),
        *(k_pages.stride(0), k_pages.stride(1), tables.stride(0)),
        PAGE=k_pages.shape[1],
        HEADS=heads,
        SIZE=size,
        BLOCK=triton.next_power_of_2(heads * size),
    )
