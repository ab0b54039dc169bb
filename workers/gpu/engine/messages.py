"""Messages between a GPU worker and its engine process, as JSON: two in one direction, three in the other.

JSON instead of pickle, so that neither side can make the other execute code, and a trace is readable.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["loading", "warming", "ready", "failed"]

FinishReason = Literal["stop", "length", "cancelled", "failed", "nan_logits", "out_of_memory", "lost"]
"""Why a request finished: a stop token or the end of its grammar, its token limit, a cancel, an error of its own, logits that are
NaN or infinite, too little memory for it alone; ``lost`` when its engine process exited."""

FinishedRequest = tuple[str, FinishReason, str]
"""Id, reason and detail of a request that has finished."""


@dataclass(frozen=True)
class GenerationRequest:
    """To the engine: generate tokens. Every request finishes in exactly one ``StepOutput.finished``."""

    id: str
    prompt: list[int]
    max_new_tokens: int
    stop_token_ids: list[int]
    temperature: float = 0.0
    """0 always takes the most likely token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means no limit."""
    seed: int | None = None
    """Requests with the same prompt, sampling parameters and seed draw the same tokens from the same scores."""
    cache_salt: int = 0
    """31 bits. Requests share pages of the KV cache only with requests that have the same one."""
    min_p: float = 0.0
    """Tokens less likely than this fraction of the most likely one are not drawn."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a generated token: once, and once for each time it was generated."""
    repetition_penalty: float = 1.0
    """Divides positive logits of tokens of the prompt and the output, and multiplies negative ones. Applied before the others."""
    logit_bias: list[tuple[int, float]] = field(default_factory=list)
    """Pairs of a token and what is added to its logit."""
    ignore_stop_tokens: bool = False
    """Generate ``max_new_tokens`` tokens, whatever they are."""
    logprobs: int | None = None
    """Report the log-probability of each generated token, and of this many most likely ones (0 to 20)."""
    prompt_logprobs: int | None = None
    """The same for each token of the prompt but the first. ``max_new_tokens`` may then be 0."""
    grammar: str = ""
    """A grammar of llguidance that the output must match; empty for any output."""
    generated_tokens: int = 0
    """How many of the last tokens of ``prompt`` are output of this request that was delivered before: for penalties and grammars."""
    scored_tokens: int = 0
    """How many entries of ``prompt_logprobs`` were delivered before. The prompt's own tokens have entries, delivered output has not."""
    deterministic: bool = False
    """Compute it in steps of its own, so that other requests do not change how its numbers are rounded."""
    adapter: str = ""
    """The LoRA adapter of the model that generates; empty for the model alone."""


@dataclass(frozen=True)
class CancelRequest:
    """To the engine: end this request. Ignored when it is unknown or has finished."""

    id: str


@dataclass(frozen=True)
class PhaseUpdate:
    """From the engine: progress of its start, or why it cannot serve. ``fraction`` of the phase is from 0 to 1."""

    phase: Phase
    message: str = ""
    fraction: float = 0.0
    out_of_memory: bool = False
    """With ``failed``: a smaller batch might have worked."""
    attention_backend: str = ""
    """With ``ready``: the attention backend in use."""
    max_context: int = 0
    """With ``ready``: tokens that prompt and output of one request may have together, by the model and the memory of its cache."""


LOWEST_LOGPROB = -9999.0
"""Replaces minus infinity, which JSON does not have, for a token that the model rules out."""

TokenLogprobs = tuple[int, float, list[tuple[int, float]]]
"""A token, its natural log-probability, and the most likely tokens with theirs, best first. They are the model's own, before
penalties, biases, grammars, temperature and limits apply."""


@dataclass(frozen=True)
class StepOutput:
    """From the engine: the output of one step, for all requests in it.

    ``tokens`` pairs request ids with new tokens, without stop tokens. A request's tokens come before its end.
    """

    tokens: list[tuple[str, list[int]]]
    finished: list[FinishedRequest]
    logprobs: list[tuple[str, list[TokenLogprobs]]] = field(default_factory=list)
    """For requests that asked for them: one entry for each of their ``tokens``."""
    prompt_logprobs: list[tuple[str, list[TokenLogprobs]]] = field(default_factory=list)
    """Entries of the next tokens of a prompt, from its second token on; a long prompt has them in several steps."""
    cached_tokens: list[tuple[str, int]] = field(default_factory=list)
    """For requests in ``finished``: how many tokens of the prompt earlier requests had left in the cache, unless none."""


@dataclass(frozen=True)
class Heartbeat:
    """From the engine, about once a second: that it is alive, and its load.

    ``steps``, ``tokens``, ``prompt_tokens`` and ``cached_tokens`` count from the start of the process; ``cache_use`` is the used
    fraction of the KV cache. ``cached_tokens`` are those prompt tokens that earlier requests had left in the cache.
    """

    steps: int
    tokens: int
    running: int
    waiting: int
    cache_use: float
    prompt_tokens: int = 0
    cached_tokens: int = 0


Message = GenerationRequest | CancelRequest | PhaseUpdate | StepOutput | Heartbeat

_TYPES: dict[str, type[Message]] = {
    "generate": GenerationRequest,
    "cancel": CancelRequest,
    "phase": PhaseUpdate,
    "step": StepOutput,
    "heartbeat": Heartbeat,
}
_NAMES = {message_type: name for name, message_type in _TYPES.items()}


def encode_message(message: Message) -> bytes:
    """Serialize one message."""
    return json.dumps([_NAMES[type(message)], vars(message)], separators=(",", ":")).encode()


def join_messages(messages: Sequence[bytes]) -> bytes:
    """Encoded messages as one."""
    return b"\n".join(messages)


def split_messages(data: bytes) -> list[bytes]:
    """Parse the output of ``join_messages``. JSON has line breaks in strings only as escapes."""
    return data.split(b"\n")


def decode_message(data: bytes) -> Message:
    """Parse the output of ``encode_message``."""
    name, values = json.loads(data)
    if name == "step":
        return StepOutput(
            tokens=[(request, tokens) for request, tokens in values["tokens"]],
            finished=[(request, reason, detail) for request, reason, detail in values["finished"]],
            logprobs=[(request, _parse_logprobs(entries)) for request, entries in values["logprobs"]],
            prompt_logprobs=[(request, _parse_logprobs(entries)) for request, entries in values["prompt_logprobs"]],
            cached_tokens=[(request, tokens) for request, tokens in values["cached_tokens"]],
        )
    if name == "generate":
        values["logit_bias"] = [(token, bias) for token, bias in values["logit_bias"]]
    return _TYPES[name](**values)


def _parse_logprobs(entries: list[list[Any]]) -> list[TokenLogprobs]:
    return [(token, logprob, [(other, value) for other, value in likely]) for token, logprob, likely in entries]
