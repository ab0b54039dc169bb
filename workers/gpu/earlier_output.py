"""Earlier output: the tokens that lost attempts of a job have generated, for the next attempt to continue.

Every delta is stored with the tokens behind it. The first line of that record identifies what the tokens continue; each following
line is JSON: the tokens of one step, or a pair of them and their log-probabilities, and at last the reason for the end of the answer.
"""

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from workers.gpu.engine.messages import FinishReason, TokenLogprobs

# A part of each fingerprint, so that no version reads the records of another that writes them differently.
FORMAT = b"\0002\0"


@dataclass(frozen=True)
class EarlierOutput:
    """Tokens, and their log-probabilities if the job asks for them. ``reason`` is set if clients have read the whole answer."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    reason: FinishReason | None = None


def fingerprint_of(model: str, prompt: Sequence[int]) -> str:
    """Identifies what tokens continue: ``model`` names weights and tokenizer, and the same prompt may be encoded differently later, as
    passages, a session's history or a chat template change."""
    return hashlib.blake2b(model.encode() + FORMAT + array("q", prompt).tobytes(), digest_size=8).hexdigest()


def format_step(tokens: Sequence[int], logprobs: Sequence[TokenLogprobs]) -> str:
    """The line of one step."""
    # A list of integers in Python is also one in JSON, and is written much faster.
    return f"{json.dumps([tokens, logprobs])}\n" if logprobs else f"{list(tokens)}\n"


def format_end(reason: FinishReason) -> str:
    """The line of the end of an answer, which releases what was held back."""
    return f"{json.dumps(reason)}\n"


def parse_output(record: str, fingerprint: str) -> EarlierOutput | None:
    """The output of earlier attempts; None if it belongs to another model or prompt."""
    first, *lines = record.splitlines()
    if first != fingerprint:
        return None
    output, reason = EarlierOutput(), None
    for line in lines:
        value = json.loads(line)
        if isinstance(value, str):
            reason = cast(FinishReason, value)
            continue
        tokens, entries = value if value and isinstance(value[0], list) else (value, [])
        output.tokens.extend(tokens)
        output.logprobs.extend(
            (token, logprob, [(other, score) for other, score in likely]) for token, logprob, likely in entries
        )
    return replace(output, reason=reason)
