"""Messages between a GPU worker and its engine process, as JSON: two in one direction, three in the other.

JSON instead of pickle, so that neither side can make the other execute code, and a trace is readable.
"""

import json
from dataclasses import dataclass
from typing import Literal

Phase = Literal["loading", "warming", "ready", "failed"]

FinishReason = Literal["stop", "length", "cancelled", "failed", "nan_logits", "out_of_memory", "lost"]
"""Why a request finished: a stop token, its token limit, a cancel, an error of its own, logits that are NaN or infinite,
too little memory for it alone; ``lost`` when its engine process exited."""

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


@dataclass(frozen=True)
class StepOutput:
    """From the engine: the output of one step, for all requests in it.

    ``tokens`` pairs request ids with new tokens, without stop tokens. A request's tokens come before its end.
    """

    tokens: list[tuple[str, list[int]]]
    finished: list[FinishedRequest]


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


def decode_message(data: bytes) -> Message:
    """Parse the output of ``encode_message``."""
    name, values = json.loads(data)
    if name == "step":
        return StepOutput(
            tokens=[(request, tokens) for request, tokens in values["tokens"]],
            finished=[(request, reason, detail) for request, reason, detail in values["finished"]],
        )
    return _TYPES[name](**values)
