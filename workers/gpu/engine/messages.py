"""What crosses between a model worker and its engine process, as JSON: two messages one way, three the other.

JSON and not pickle, so that neither side can be made to run what the other sends, and a trace of the pipe can be read.
It knows nothing of how messages are carried.
"""

import json
from dataclasses import dataclass
from typing import Literal

Phase = Literal["loading", "warming", "ready", "failed"]

FinishReason = Literal["stop", "length", "cancelled", "failed", "nan_logits", "out_of_memory", "lost"]
"""Why a request ended: a stop token, its limit, a wish, a fault of its own, scores that are no numbers, too little memory
for it alone; ``lost`` with its engine process."""


@dataclass(frozen=True)
class GenerationRequest:
    """To the engine: generate. Every accepted request ends in exactly one ``Step.finished``."""

    id: str
    prompt: list[int]
    max_new_tokens: int
    stop_token_ids: list[int]
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    top_k: int = 0
    """0 does not limit."""
    seed: int | None = None
    """Requests with the same prompt, sampling and seed draw the same tokens."""


@dataclass(frozen=True)
class CancelRequest:
    """To the engine: end this request. One that is unknown, or has ended, is no fault."""

    id: str


@dataclass(frozen=True)
class State:
    """From the engine: how far its start is, or why it cannot serve. ``fraction`` of the phase is from 0 to 1."""

    phase: Phase
    message: str = ""
    fraction: float = 0.0
    out_of_memory: bool = False
    """With ``failed``: a smaller batch might have gone well."""
    attention: str = ""
    """With ``ready``: the kernel that it attends by."""


@dataclass(frozen=True)
class StepOutput:
    """From the engine: what one step gave, for all requests in it, their tokens before their ends.

    ``tokens`` pairs ids of requests with new tokens, stop tokens left out; ``finished`` has id, reason and detail.
    """

    tokens: list[tuple[str, list[int]]]
    finished: list[tuple[str, FinishReason, str]]


@dataclass(frozen=True)
class Heartbeat:
    """From the engine, about once a second: that it lives, and what it holds.

    ``steps`` and ``tokens`` count from the start of the process; ``cache_use`` is the used fraction of the key-value cache.
    ``evictions`` counts requests whose pages were taken from them and computed again, from the start of the process too.
    """

    steps: int
    tokens: int
    running: int
    waiting: int
    cache_use: float
    evictions: int = 0


Message = GenerationRequest | CancelRequest | State | StepOutput | Heartbeat

_KINDS: dict[str, type[Message]] = {
    "submit": GenerationRequest,
    "cancel": CancelRequest,
    "state": State,
    "step": StepOutput,
    "beat": Heartbeat,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    """One message as bytes."""
    return json.dumps([_NAMES[type(message)], vars(message)], separators=(",", ":")).encode()


def decode(data: bytes) -> Message:
    """The message that ``encode`` made these bytes from."""
    name, values = json.loads(data)
    if name == "step":
        return StepOutput(
            tokens=[(request, tokens) for request, tokens in values["tokens"]],
            finished=[(request, reason, detail) for request, reason, detail in values["finished"]],
        )
    return _KINDS[name](**values)
