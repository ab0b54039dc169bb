"""Sampling options of a request as fields of a job's spec. Omitted options get the defaults of the model's generation config."""

from typing import Any

from shared.errors import InvalidValue
from shared.openai.requests.sampling import SamplingOptions

# Fields with the same name and meaning in a spec.
COPIED_FIELDS = (
    *("temperature", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"),
    *("stop", "stop_token_ids", "ignore_eos", "deterministic"),
)
# OpenAI allows a top_p of 0, which keeps only the most likely token; the engine needs a positive one.
SMALLEST_TOP_P = 1e-6


def sampling_spec(request: SamplingOptions, max_tokens: int | None, field: str) -> dict[str, Any]:
    """The options that the request sets. Raises InvalidValue with ``field`` as ``param`` if ``max_tokens`` is less than 1."""
    spec = {name: value for name in COPIED_FIELDS if (value := getattr(request, name)) is not None}
    if request.top_p is not None:
        spec["top_p"] = max(request.top_p, SMALLEST_TOP_P)
    if request.top_k is not None:
        spec["top_k"] = max(request.top_k, 0)
    # Some clients send -1 for "no limit".
    if max_tokens is not None and max_tokens != -1:
        if max_tokens < 1:
            raise InvalidValue(f"{field}: must be at least 1, not {max_tokens}", param=field)
        spec["max_tokens"] = max_tokens
    return spec
