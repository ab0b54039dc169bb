"""Token sampling on a GPU without sorting: one program per request reads its logits a few times.

The set that top-k and top-p keep is closed upwards: with a token it contains every more likely one. So the most likely token after
noise is accepted if it is in the set, else the search goes on above its logit. With usual parameters the first is accepted.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from workers.gpu.engine.adjustments import KERNEL_HEADER
from workers.gpu.engine.step import INVALID_TOKEN, SAMPLING_FIELDS

_BLOCK = 4096


def sample_tokens_on_gpu(logits: Tensor, sampling: Tensor, positions: Tensor) -> Tensor:
    """``sampling.sample_tokens`` for logits on a GPU."""
    rows, vocabulary = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    _sample_kernel[(rows,)](
        *(logits, logits.stride(0), vocabulary, sampling, sampling.stride(0), positions, tokens),
        # Not read.
        tokens,
        IS_AGAIN=False,
        HEADER=KERNEL_HEADER,
        FIELDS=SAMPLING_FIELDS,
        INVALID=INVALID_TOKEN,
        BLOCK=_BLOCK,
        num_warps=8,
    )
    return tokens


def sample_again_on_gpu(
    logits: Tensor, positions: Tensor, tokens: Tensor, parameters: Tensor, masks: Tensor, capacity: int
) -> None:
    """Sample the ``tokens`` of some rows of ``logits`` again, with ``min_p`` and masks. Invalid tokens stay.

    ``positions`` (int32) and ``tokens`` (int64) have an element for each row of ``logits``. ``parameters`` (int32) are those of
    ``Adjustments.write_parameters``, and ``masks`` those of the adjustments. It is one kernel, which reads the logits as they are. All that differs from
    step to step is in the memory of the device, so that a CUDA graph can contain it.
    """
    _sample_kernel[(capacity,)](
        *(logits, logits.stride(0), logits.shape[1], parameters, capacity, positions, tokens, masks),
        IS_AGAIN=True,
        HEADER=KERNEL_HEADER,
        FIELDS=SAMPLING_FIELDS,
        INVALID=INVALID_TOKEN,
        BLOCK=_BLOCK,
        num_warps=8,
    )


@triton.jit
def _mix(x):
    # As in sampling.gumbel_noise.
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _gumbel_noise(key, token):
    bits = _mix(token.to(tl.uint32) + key)
    uniform = ((bits & 0x7FFFFFFF).to(tl.float32) + 0.5) * 4.656612873077393e-10
    return -tl.log(-libdevice.log1p(-uniform))


@triton.jit
def _load_logits(source, mask, token, vocabulary, words, is_masked, IS_AGAIN: tl.constexpr):
    x = tl.load(source + token, mask=token < vocabulary, other=-float("inf")).to(tl.float32)
    if IS_AGAIN:
        word = tl.load(mask + token // 32, mask=is_masked & (token < words * 32), other=0)
        x = tl.where(is_masked & (((word >> (token % 32)) & 1) == 0), -float("inf"), x)
    return x


# Compiling again for a number of requests that happens to be 1 or divisible by 16 would stop all running requests for a second.
@triton.jit(do_not_specialize=["field_stride"])
def _sample_kernel(
    logits,
    row_stride,
    vocabulary,
    sampling,
    field_stride,
    positions,
    tokens,
    masks,
    IS_AGAIN: tl.constexpr,
    HEADER: tl.constexpr,
    FIELDS: tl.constexpr,
    INVALID: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.program_id(0)
    row = column
    is_used = True
    is_masked = False
    words = 0
    end = vocabulary
    if IS_AGAIN:
        is_used = column < tl.load(sampling)
        is_masked = column < tl.load(sampling + 1)
        words = tl.load(sampling + 2)
        sampling += HEADER
        row = tl.load(sampling + FIELDS * field_stride + column, mask=is_used, other=0)
        # A program without a request reads no logits.
        end = tl.where(is_used, vocabulary, 0)
    mask = masks + column.to(tl.int64) * words
    source = logits + row.to(tl.int64) * row_stride
    lane = tl.arange(0, BLOCK)
    temperature = tl.load(sampling + column).to(tl.float32, bitcast=True)
    top_p = tl.load(sampling + field_stride + column).to(tl.float32, bitcast=True)
    top_k = tl.load(sampling + 2 * field_stride + column)

    best = tl.full([BLOCK], -float("inf"), tl.float32)
    best_token = tl.zeros([BLOCK], tl.int32)
    lowest = tl.full([BLOCK], float("inf"), tl.float32)
    bad = tl.zeros([BLOCK], tl.int32)
    for start in range(0, end, BLOCK):
        inside = start + lane < vocabulary
        x = _load_logits(source, mask, start + lane, vocabulary, words, is_masked, IS_AGAIN)
        bad |= ((x != x) | (x == float("inf"))).to(tl.int32)
        best_token = tl.where(x > best, start + lane, best_token)
        best = tl.maximum(best, x)
        lowest = tl.minimum(lowest, tl.where(inside & (x > -float("inf")), x, float("inf")))
    largest = tl.max(best, 0)
    # The first of equals, as torch does.
    token = tl.min(tl.where(best == largest, best_token, vocabulary), 0)
    is_valid = (tl.max(bad, 0) == 0) & (largest > -float("inf"))

    if is_valid & (temperature > 0):
        seed = tl.load(sampling + 3 * field_stride + column).to(tl.uint32, bitcast=True)
        position = tl.load(positions + row).to(tl.uint32, bitcast=True)
        key = _mix(_mix(position) ^ seed)
        scale = 1.0 / temperature

        # With both limits the probabilities are those within the top k, so its lowest logit is needed first.
        floor = -float("inf")
        if (top_k > 0) & (top_p < 1):
            low = tl.min(lowest, 0)
            high = largest
            # Three thresholds in each pass, down to the precision of float32.
            for _ in range(12):
                quarter = (high - low) * 0.25
                counts_1 = tl.zeros([BLOCK], tl.int32)
                counts_2 = tl.zeros([BLOCK], tl.int32)
                counts_3 = tl.zeros([BLOCK], tl.int32)
                for start in range(0, vocabulary, BLOCK):
                    x = _load_logits(source, mask, start + lane, vocabulary, words, is_masked, IS_AGAIN)
                    counts_1 += (x >= low + quarter).to(tl.int32)
                    counts_2 += (x >= low + 2 * quarter).to(tl.int32)
                    counts_3 += (x >= low + 3 * quarter).to(tl.int32)
                steps = (tl.sum(counts_1, 0) >= top_k).to(tl.int32)
                steps += (tl.sum(counts_2, 0) >= top_k).to(tl.int32)
                steps += (tl.sum(counts_3, 0) >= top_k).to(tl.int32)
                low += steps * quarter
                high = tl.where(steps < 3, low + quarter, high)
            floor = low
        if IS_AGAIN:
            min_p = tl.load(sampling + (FIELDS + 1) * field_stride + column).to(tl.float32, bitcast=True)
            floor = tl.maximum(floor, largest + temperature * tl.log(min_p))

        total = 0.0
        if top_p < 1:
            mass = tl.zeros([BLOCK], tl.float32)
            for start in range(0, vocabulary, BLOCK):
                x = _load_logits(source, mask, start + lane, vocabulary, words, is_masked, IS_AGAIN)
                mass += tl.where(x >= floor, tl.exp((x - largest) * scale), 0.0)
            total = tl.sum(mass, 0)

        above = -float("inf")
        searching = True
        while searching:
            best = tl.full([BLOCK], -float("inf"), tl.float32)
            best_token = tl.zeros([BLOCK], tl.int32)
            best_logit = tl.full([BLOCK], -float("inf"), tl.float32)
            for start in range(0, vocabulary, BLOCK):
                x = _load_logits(source, mask, start + lane, vocabulary, words, is_masked, IS_AGAIN)
                noisy = tl.where((x > above) & (x >= floor), x * scale + _gumbel_noise(key, start + lane), -float("inf"))
                better = noisy > best
                best_token = tl.where(better, start + lane, best_token)
                best_logit = tl.where(better, x, best_logit)
                best = tl.maximum(best, noisy)
            winner = tl.max(best, 0)
            token = tl.min(tl.where(best == winner, best_token, vocabulary), 0)
            logit = tl.max(tl.where((best == winner) & (best_token == token), best_logit, -float("inf")), 0)
            if (top_p < 1) | (top_k > 0):
                mass = tl.zeros([BLOCK], tl.float32)
                count = tl.zeros([BLOCK], tl.int32)
                for start in range(0, vocabulary, BLOCK):
                    x = _load_logits(source, mask, start + lane, vocabulary, words, is_masked, IS_AGAIN)
                    mass += tl.where(x > logit, tl.exp((x - largest) * scale), 0.0)
                    count += (x > logit).to(tl.int32)
                within_p = (top_p >= 1) | (tl.sum(mass, 0) < top_p * total)
                within_k = (top_k == 0) | (tl.sum(count, 0) < top_k)
                # Nothing is more likely than the largest; rounding must not keep the search from ending there.
                searching = (not (within_p & within_k)) & (logit < largest)
                above = logit
            else:
                searching = False
    if IS_AGAIN:
        # NaN and infinite logits may be among those that the mask hides.
        if is_used & (tl.load(tokens + row) != INVALID):
            tl.store(tokens + row, tl.where(is_valid, token, INVALID).to(tl.int64))
    else:
        tl.store(tokens + row, tl.where(is_valid, token, INVALID).to(tl.int64))
