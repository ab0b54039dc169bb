"""Triton kernels of a decoder layer: residual add with RMSNorm, rotary embedding with cache append, SiLU gate."""

import triton
import triton.language as tl


@triton.jit
def add_rms_norm(hidden, residual, weight, out, width, epsilon, FIRST: tl.constexpr, BLOCK: tl.constexpr):
    """Add ``hidden`` to ``residual`` in place and write the normalized sum to ``out``. One program per token.

    ``FIRST`` marks the first layer, whose residual does not exist yet.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    total = tl.load(hidden + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if not FIRST:
        total += tl.load(residual + row * width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(residual + row * width + column, total, mask=inside)
    scaled = total * tl.rsqrt(tl.sum(total * total, 0) / width + epsilon)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, scaled * gain, mask=inside)


@triton.jit
def rotate_and_append(
    qkv,
    positions,
    slots,
    cosines,
    sines,
    query_norm,
    key_norm,
    key_cache,
    value_cache,
    row_stride,
    epsilon,
    QUERY_HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    NORM: tl.constexpr,
):
    """Rotate queries in place; write rotated keys and plain values to their cache slots. One program per token and head.

    ``NORM`` normalizes each head of queries and keys first (Qwen3).
    """
    token = tl.program_id(0)
    head = tl.program_id(1)
    slot = tl.load(slots + token)
    half = tl.arange(0, SIZE // 2)
    source = qkv + token.to(tl.int64) * row_stride + head * SIZE
    first = tl.load(source + half).to(tl.float32)
    second = tl.load(source + SIZE // 2 + half).to(tl.float32)
    if head < QUERY_HEADS + KEY_HEADS:
        if NORM:
            scale = tl.rsqrt((tl.sum(first * first, 0) + tl.sum(second * second, 0)) / SIZE + epsilon)
            weight = query_norm
            if head >= QUERY_HEADS:
                weight = key_norm
            first = first * scale * tl.load(weight + half).to(tl.float32)
            second = second * scale * tl.load(weight + SIZE // 2 + half).to(tl.float32)
        position = tl.load(positions + token)
        cosine = tl.load(cosines + position * (SIZE // 2) + half)
        sine = tl.load(sines + position * (SIZE // 2) + half)
        rotated_first = first * cosine - second * sine
        rotated_second = second * cosine + first * sine
        if head < QUERY_HEADS:
            tl.store(source + half, rotated_first)
            tl.store(source + SIZE // 2 + half, rotated_second)
        else:
            target = key_cache + (slot * KEY_HEADS + (head - QUERY_HEADS)) * SIZE
            tl.store(target + half, rotated_first)
            tl.store(target + SIZE // 2 + half, rotated_second)
    else:
        target = value_cache + (slot * KEY_HEADS + (head - QUERY_HEADS - KEY_HEADS)) * SIZE
        tl.store(target + half, first)
        tl.store(target + SIZE // 2 + half, second)


@triton.jit
def silu_multiply(gate_up, out, width, BLOCK: tl.constexpr):
    """Write SiLU(gate) times up, where a row of ``gate_up`` holds the gate and then the up projection."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, gate * tl.sigmoid(gate) * up, mask=inside)
