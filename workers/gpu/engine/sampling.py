"""Draws tokens for a whole batch, each request by its own temperature, top-k, top-p and seed.

The draw is by Gumbel's trick: the likeliest token after noise is added is a fair draw from the distribution. The noise is
a hash of seed, position and token, and not the next number of a generator that all requests share, so a request draws the
same tokens whatever else is in its batch. It knows nothing of models, and of transformers only the place to stand.
"""

import hashlib
import random
import struct
from typing import Any

import torch
from torch import Tensor
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.logits_process import LogitsProcessorList

# What one request needs, each as 32 bits in a row of one int32 tensor: that is how the batch carries them to the device.
TEMPERATURE, TOP_P, TOP_K, SEED, POSITION = range(5)
Sampling = tuple[int, int, int, int]
"""The first four of these for one request; its position changes with every token."""

KEY = "sampling"

# On the CPU this many tokens are looked at first; they seldom leave out any of a nucleus.
_FEW = 1024


def encode_sampling(temperature: float, top_p: float, top_k: int, seed: int | None) -> Sampling:
    """The rows of one request. A temperature of 0 is greedy; without a seed one is drawn."""
    if seed is None:
        folded = random.getrandbits(32)
    else:
        folded = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest(), "little")
    bits = struct.unpack("<2i", struct.pack("<2f", temperature, top_p))
    return bits[0], bits[1], min(top_k, 2**31 - 1), folded - 2**31


GREEDY = encode_sampling(0.0, 1.0, 0, 0)
SAMPLED = encode_sampling(1.0, 1.0, 0, 0)


class SamplingProcessors(ContinuousBatchingLogitsProcessorList):
    """Takes the place of the manager's own processors; with greedy decoding after it, its scores are the draw.

    ``drawing`` tells whether any request of the step now prepared draws; if none does, the scores stay as they are.
    ``unasked`` is the sampling of requests that have none: the manager's own, with which it warms up.
    """

    def __init__(self) -> None:
        super().__init__(LogitsProcessorList())
        self.tensors_required = POSITION + 1
        self.supported_keys = {KEY: tuple}
        self.do_processing = True
        self.drawing = False
        self.unasked = GREEDY

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.copy_(torch.tensor([*GREEDY, 0], dtype=torch.int32).view(-1, 1))

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: Tensor) -> Tensor:
        rows = [
            (*request.state.logit_processor_kwargs.get(KEY, self.unasked), request.state.position_offset)
            for request in requests_in_batch
            if request.has_new_token
        ]
        self.drawing = any(row[TEMPERATURE] for row in rows)
        if rows:
            arg_storage[:, : len(rows)] = torch.tensor(rows, dtype=torch.int32).T
        return arg_storage

    # Out of the compiler's sight: it would compile the model once for steps that draw and once for those that do not.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, input_ids: Tensor, scores: Tensor, logits_processor_args: Tensor) -> Tensor:
        if not self.drawing:
            return scores
        rows = logits_processor_args[:, : scores.size(0)]
        if scores.is_cuda:
            # A captured graph cannot branch on its data: every request is drawn for, and greedy ones then put back.
            return torch.where((rows[TEMPERATURE] == 0)[:, None], scores, draw(scores, rows))
        sampled = torch.nonzero(rows[TEMPERATURE]).flatten().tolist()
        for row in sampled:
            token = draw_one(scores[row], rows[:, row])
            if token is not None:
                scores[row].fill_(-torch.inf)[token] = 0.0
        return scores


def draw(scores: Tensor, rows: Tensor) -> Tensor:
    """Scores (a row per request, a column per token, float32) whose largest of each row is the token drawn for it."""
    temperature = rows[TEMPERATURE].contiguous().view(torch.float32)[:, None]
    logits = scores / torch.where(temperature > 0, temperature, 1.0)
    logits = _keep_likeliest(logits, rows[TOP_P].contiguous().view(torch.float32)[:, None], rows[TOP_K][:, None])
    tokens = torch.arange(logits.size(-1), dtype=torch.int32, device=logits.device)
    return logits + gumbel(rows[SEED][:, None], rows[POSITION][:, None], tokens)


def draw_one(scores: Tensor, row: Tensor) -> int | None:
    """The same draw for one request, on the CPU, where a branch is cheap and work on the whole vocabulary is not.

    None if the scores are no numbers, or infinite.
    """
    temperature, top_p = row[: TOP_P + 1].contiguous().view(torch.float32).tolist()
    top_k = min(int(row[TOP_K]), len(scores))
    logits = scores / temperature
    tokens = torch.arange(len(scores), dtype=torch.int32)
    if top_k or top_p < 1:
        logits, tokens = _likeliest(logits, top_p, top_k)
    largest, index = (logits + gumbel(row[SEED], row[POSITION], tokens)).max(-1)
    return int(tokens[index]) if largest.isfinite() else None


def gumbel(seed: Tensor, position: Tensor, tokens: Tensor) -> Tensor:
    """Gumbel noise for each token, the same for the same seed, position and token; all are int32 and broadcast."""
    bits = _mix(tokens + _mix(_mix(position.clone()) ^ seed))
    # Small uniforms keep their precision here, and they are the ones that make large noise.
    uniform = bits.bitwise_and_(0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def _mix(x: Tensor) -> Tensor:
    # "lowbias32" (C. Wellons, public domain), in wrapping int32; the masks make arithmetic shifts logical ones. In place:
    # on the CPU the time goes into memory for the steps between, four times as much as into the arithmetic.
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= 0x846CA68B - 2**32
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x


def _likeliest(logits: Tensor, top_p: float, top_k: int) -> tuple[Tensor, Tensor]:
    """The logits and tokens that top-k and then top-p leave of one row, in falling order."""
    total = logits.logsumexp(-1)
    for many in (top_k or _FEW, len(logits)):
        kept, tokens = logits.topk(min(many, len(logits)))
        chances = (kept - (kept.logsumexp(-1) if top_k else total)).exp().cumsum(-1)
        if top_k or chances[-1] >= top_p:
            break
    count = int((chances < top_p).sum()) + 1
    return kept[:count], tokens[:count].to(torch.int32)


def _keep_likeliest(logits: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """The logits of each row that top-k and then top-p leave, and those equal to the last of them; the rest are -inf."""
    falling = logits.sort(-1, descending=True).values
    rank = torch.arange(logits.size(-1), device=logits.device)
    within_k = (rank < top_k) | (top_k == 0)
    chances = falling.masked_fill(~within_k, -torch.inf).softmax(-1)
    # A token is kept when those before it do not have the probability yet. Rounding must not cut what has no limit.
    within_p = (chances.cumsum(-1) - chances < top_p) | (top_p >= 1)
    last = (within_k & within_p).sum(-1, keepdim=True).sub(1).clamp(min=0)
    return logits.masked_fill(logits < falling.gather(-1, last), -torch.inf)
