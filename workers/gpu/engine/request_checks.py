"""Checks of a request's fields, for every engine."""

from collections.abc import Collection
from math import isfinite

from workers.gpu.engine.messages import GenerationRequest

MAX_LOGPROBS = 20


def find_problem(request: GenerationRequest, *, vocabulary_size: int, max_context: int, adapters: Collection[str] = ()) -> str:
    """What is wrong with a request, naming field and limit; empty if nothing is. ``adapters`` are those of the model."""
    prompt = request.prompt
    # A prompt may fill the context only if nothing is generated.
    room = max_context - len(prompt) - (request.max_new_tokens > 0)
    if not prompt:
        return "the prompt has no tokens"
    if not 0 <= min(prompt) <= max(prompt) < vocabulary_size:
        return f"the prompt contains token ids outside the model's vocabulary of {vocabulary_size}"
    if room < 0:
        return f"the prompt has {len(prompt)} tokens, and prompt and output together may have {max_context}"
    if request.max_new_tokens < (0 if request.prompt_logprobs is not None else 1):
        return "max_new_tokens must be at least 1, or 0 with prompt_logprobs"
    for name, count in (("logprobs", request.logprobs), ("prompt_logprobs", request.prompt_logprobs)):
        if count is not None and not 0 <= count <= MAX_LOGPROBS:
            return f"{name} must be between 0 and {MAX_LOGPROBS}"
    if not 0 <= request.min_p <= 1:
        return "min_p must be between 0 and 1"
    if not (isfinite(request.presence_penalty) and isfinite(request.frequency_penalty)):
        return "presence_penalty and frequency_penalty must be finite"
    if not (isfinite(request.repetition_penalty) and request.repetition_penalty > 0):
        return "repetition_penalty must be a finite number above 0"
    for token, bias in request.logit_bias:
        if not 0 <= token < vocabulary_size:
            return f"logit_bias contains token {token}, and the model's vocabulary has {vocabulary_size}"
        if not isfinite(bias):
            return f"logit_bias of token {token} must be finite"
    if not 0 <= request.generated_tokens < len(prompt):
        return "generated_tokens must be less than the tokens of the prompt"
    if request.adapter and request.adapter not in adapters:
        return f"the model has no adapter {request.adapter!r}"
    if request.scored_tokens < 0:
        return "scored_tokens must not be negative"
    return ""
