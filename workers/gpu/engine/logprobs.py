"""Log-probabilities of tokens: the natural logarithm of the softmax of a model's own logits, in float32."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.gpu.engine.messages import LOWEST_LOGPROB

# Logits of this many positions are turned into float32 at once: with a vocabulary of 128,000 they take 33 MB.
SLICE = 64


@dataclass(frozen=True)
class ScoreTensors:
    """As ``step.TokenScores``, on the device."""

    logprobs: Tensor
    top_tokens: Tensor
    top_logprobs: Tensor


def score_tokens(logits: Tensor, rows: Tensor, tokens: Tensor, top: int) -> ScoreTensors:
    """Scores of N ``tokens``, each by one of the ``rows`` of ``logits``, with the ``top`` most likely ones. Does not wait for a GPU."""
    logprobs, top_tokens, top_logprobs = [], [], []
    for part, chosen in zip(torch.split(rows, SLICE), torch.split(tokens, SLICE), strict=True):
        scores = logits[part].float().log_softmax(-1).clamp_(min=LOWEST_LOGPROB)
        # A row without a valid token has an index that is none.
        logprobs.append(scores.gather(-1, chosen.long().clamp(min=0)[:, None])[:, 0])
        best, likely = scores.topk(top, dim=-1)
        top_logprobs.append(best)
        top_tokens.append(likely.to(torch.int32))
    return ScoreTensors(torch.cat(logprobs), torch.cat(top_tokens), torch.cat(top_logprobs))
