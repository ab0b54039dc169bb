"""Token sampling for a whole batch, each request with its own temperature, top-k, top-p and seed.

Sampling uses the Gumbel-max trick: the most likely token after Gumbel noise is added is a fair draw from the distribution.
The noise is a hash of seed, position and token instead of the next number of a shared generator, so a request draws the
same tokens from the same scores. The scores themselves differ in their last digits with the other requests of the batch.
"""

import hashlib
import random
import struct

import torch
from torch import Tensor

from workers.gpu.engine.step import INVALID_TOKEN

# Sampling parameters of one request, each as 32 bits in a row of one int32 tensor, which is how they reach the device.
TEMPERATURE, TOP_P, TOP_K, SEED, POSITION = range(5)
SamplingParameters = tuple[int, int, int, int]
"""The first four of these for one request; its position changes with every token."""

# Below this the most likely token wins in any case, and logits divided by it may be infinite.
_MIN_TEMPERATURE = 1e-6
# On the CPU only this many candidates are examined at first; they seldom miss any of the nucleus.
_FIRST_CANDIDATES = 1024


def encode_sampling(temperature: float, top_p: float, top_k: int, seed: int | None) -> SamplingParameters:
    """The encoded parameters of one request. A temperature of 0 is greedy; without a seed a random one is chosen."""
    if seed is None:
        folded = random.getrandbits(32)
    else:
        folded = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest(), "little")
    bits = struct.unpack("<2i", struct.pack("<2f", temperature if temperature >= _MIN_TEMPERATURE else 0.0, top_p))
    return bits[0], bits[1], min(top_k, 2**31 - 1), folded - 2**31


GREEDY = encode_sampling(0.0, 1.0, 0, 0)


def sample_tokens(logits: Tensor, sampling: Tensor, positions: Tensor) -> Tensor:
    """The token that each row of ``logits`` samples (int64), or INVALID_TOKEN where they are NaN or infinite.

    ``sampling`` has a column of encoded parameters per row; ``positions`` are those of the tokens. Does not wait for a GPU.
    """
    if logits.is_cuda:
        from workers.gpu.engine.sampling_kernel import sample_tokens_on_gpu

        return sample_tokens_on_gpu(logits, sampling, positions)
    largest, tokens = logits.max(dim=-1)
    tokens = torch.where(largest.isfinite(), tokens, INVALID_TOKEN)
    for row in torch.nonzero(sampling[TEMPERATURE]).flatten().tolist():
        tokens[row] = sample_token(logits[row].float(), torch.cat([sampling[:, row], positions[row : row + 1]]))
    return tokens


def sample_token(scores: Tensor, row: Tensor) -> int:
    """The token that one request with a temperature samples on the CPU. ``row`` are its encoded parameters and its position."""
    temperature, top_p = row[: TOP_P + 1].contiguous().view(torch.float32).tolist()
    top_k = min(int(row[TOP_K]), len(scores))
    logits = scores / temperature
    tokens = torch.arange(len(scores), dtype=torch.int32)
    if top_k or top_p < 1:
        logits, tokens = _top_candidates(logits, top_p, top_k)
    largest, index = (logits + gumbel_noise(row[SEED], row[POSITION], tokens)).max(-1)
    return int(tokens[index]) if largest.isfinite() else INVALID_TOKEN


def gumbel_noise(seed: Tensor, position: Tensor, tokens: Tensor) -> Tensor:
    """Gumbel noise for each token, the same for the same seed, position and token; all are int32 and broadcast."""
    bits = _mix(tokens + _mix(_mix(position.clone()) ^ seed))
    # Small uniforms keep their precision in this form, and they produce the large noise.
    uniform = bits.bitwise_and_(0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def _mix(x: Tensor) -> Tensor:
    # "lowbias32" (C. Wellons, public domain), in wrapping int32; the masks turn arithmetic shifts into logical ones. In
    # place, because on the CPU temporaries cost four times as much as the arithmetic.
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= 0x846CA68B - 2**32
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x


def _top_candidates(logits: Tensor, top_p: float, top_k: int) -> tuple[Tensor, Tensor]:
    """The logits and tokens that top-k and then top-p keep of one row, in descending order."""
    total = logits.logsumexp(-1)
    for count in (top_k or _FIRST_CANDIDATES, len(logits)):
        kept, tokens = logits.topk(min(count, len(logits)))
        cumulative = (kept - (kept.logsumexp(-1) if top_k else total)).exp().cumsum(-1)
        if top_k or cumulative[-1] >= top_p:
            break
    count = int((cumulative < top_p).sum()) + 1
    return kept[:count], tokens[:count].to(torch.int32)
