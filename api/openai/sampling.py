"""Sampling options of a request as a job's spec has them. What a request leaves out is left to the model's own configuration."""

from typing import Any

from api.schemas.requests.openai.base import SamplingFields
from shared.errors import InvalidValue

# Fields that have the same name and meaning in a spec.
SAME = (
    *("temperature", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"),
    *("stop", "stop_token_ids", "ignore_eos"),
)
# The engine keeps the tokens whose share is at least this; OpenAI allows 0, which means the most likely one.
SMALLEST_TOP_P = 1e-6


def sampling_spec(request: SamplingFields, max_tokens: int | None, field: str) -> dict[str, Any]:
    """The options that the request sets. Raises InvalidValue, which names ``field``, if ``max_tokens`` is no possible length."""
    spec = {name: value for name in SAME if (value := getattr(request, name)) is not None}
    if request.top_p is not None:
        spec["top_p"] = max(request.top_p, SMALLEST_TOP_P)
    if request.top_k is not None:
        spec["top_k"] = max(request.top_k, 0)
    # Some clients send -1 for "no limit".
    if max_tokens not in (None, -1):
        if max_tokens is None or max_tokens < 1:
            raise InvalidValue(f"{field}: must be at least 1, not {max_tokens}", param=field)
        spec["max_tokens"] = max_tokens
    return spec
