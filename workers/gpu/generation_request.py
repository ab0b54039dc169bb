"""Generation request: from a job's spec to the message for the engine, with the model's own defaults."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InvalidValue, PromptTooLong
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.tokenization import TextCodec

# When neither the request nor the model says anything: the scores as they are.
NEUTRAL_SAMPLING: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}

MAX_LOGPROBS = 20


def max_tokens_of(spec: Mapping[str, Any], entry: ModelEntry) -> int:
    """How many tokens a job may generate. None at all is allowed if the prompt is all that matters. Raises InvalidValue."""
    value = spec.get("max_tokens")
    if value is None:
        return entry.max_tokens
    if value == 0 and prompt_logprobs_of(spec) is None:
        raise InvalidValue(
            "max_tokens: must be at least 1; 0 is only allowed with `echo` and log-probabilities of the prompt",
            param="max_tokens",
        )
    return int(value)


def prompt_logprobs_of(spec: Mapping[str, Any]) -> int | None:
    """How many likely tokens to report for each token of the prompt; an echo with log-probabilities includes them."""
    value = spec.get("prompt_logprobs")
    if value is None and spec.get("echo"):
        value = spec.get("logprobs")
    return _logprobs(value, "prompt_logprobs")


def build_request(
    id: str,
    prompt: Sequence[int],
    spec: Mapping[str, Any],
    *,
    owner: str,
    entry: ModelEntry,
    codec: TextCodec,
    grammar: str = "",
    adapter: str = "",
) -> GenerationRequest:
    """The engine's request for a spec. Raises PromptTooLong and InvalidValue."""
    max_tokens, context = max_tokens_of(spec, entry), codec.max_context
    if len(prompt) + min(max_tokens, 1) > context:
        raise PromptTooLong(
            f"The prompt has {len(prompt)} tokens, but model {entry.name} has a context of {context} tokens for prompt "
            "and answer together. Send a shorter prompt, or use a model with a longer context.",
            param="prompt",
            details={"prompt_tokens": len(prompt), "max_context": context},
        )
    ignores_end = bool(spec.get("ignore_eos"))
    stop_token_ids = [int(id) for id in spec.get("stop_token_ids") or ()]
    codec.check_token_ids(stop_token_ids, "stop_token_ids")
    sampling = {**NEUTRAL_SAMPLING, **codec.sampling_defaults}
    sampling.update((name, spec[name]) for name in NEUTRAL_SAMPLING if spec.get(name) is not None)
    return GenerationRequest(
        id=id,
        prompt=list(prompt),
        max_new_tokens=min(max_tokens, context - len(prompt)),
        stop_token_ids=sorted({*stop_token_ids, *(() if ignores_end else codec.stop_token_ids)}),
        temperature=float(sampling["temperature"]),
        top_p=float(sampling["top_p"]),
        # Some configurations have -1 or null for "no limit".
        top_k=max(0, int(sampling["top_k"])),
        seed=spec.get("seed"),
        cache_salt=zlib.crc32(owner.encode()) & 0x7FFFFFFF,
        min_p=float(spec.get("min_p") or 0.0),
        presence_penalty=float(spec.get("presence_penalty") or 0.0),
        frequency_penalty=float(spec.get("frequency_penalty") or 0.0),
        repetition_penalty=float(spec.get("repetition_penalty") or 1.0),
        logit_bias=_logit_bias(spec.get("logit_bias") or {}, codec),
        # Stop tokens of the request itself still end the answer.
        ignore_stop_tokens=ignores_end and not stop_token_ids,
        logprobs=_logprobs(spec.get("logprobs"), "logprobs"),
        prompt_logprobs=prompt_logprobs_of(spec),
        grammar=grammar,
        deterministic=bool(spec.get("deterministic")),
        adapter=adapter,
    )


def _logit_bias(biases: Mapping[str, float], codec: TextCodec) -> list[tuple[int, float]]:
    try:
        pairs = [(int(token), float(bias)) for token, bias in biases.items()]
    except (TypeError, ValueError):
        raise InvalidValue("logit_bias: must map token ids to numbers", param="logit_bias") from None
    codec.check_token_ids([token for token, _ in pairs], "logit_bias")
    return pairs


def _logprobs(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LOGPROBS:
        raise InvalidValue(f"{name}: must be between 0 and {MAX_LOGPROBS}", param=name, details={"limit": MAX_LOGPROBS})
    return value
