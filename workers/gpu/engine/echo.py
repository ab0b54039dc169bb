"""Echo engine: no model, generates the prompt's own tokens, one per step and request. A token is a byte.

Deterministic and instant. It replaces a model in tests and on machines that only need the rest of the stack. Each token is certain, so
its log-probability is 0, and neither temperature, limits, penalties nor biases change it. A grammar does: where it does not allow the
prompt's byte, another one takes its place.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.messages import FinishedRequest, FinishReason, GenerationRequest, Heartbeat, StepOutput, TokenLogprobs
from workers.gpu.engine.protocol import PhaseCallback
from workers.gpu.engine.request_checks import find_problem

if TYPE_CHECKING:  # numpy and llguidance take a while to import, and the worker imports this module for ECHO_CONTEXT
    from workers.gpu.engine.grammars import GrammarCompiler, GrammarMatcher

# Tokens of prompt and output together, for an entry without max_context.
ECHO_CONTEXT = 8192


BYTES = 256
# Stands for the end of a constrained output. No byte is so large, and no token of llguidance's byte tokenizer that it uses.
_STOP = 256
# Where the grammar rules out the prompt's byte. First what ends a string, an object or an array; last what can be repeated forever.
_REPEATABLE = b" \t\n\r\\"
_PREFERRED = [*b'"}]', *(byte for byte in range(BYTES) if byte not in b'"}]' + _REPEATABLE), *_REPEATABLE]


@dataclass
class _EchoRequest:
    request: GenerationRequest
    prompt: list[int]
    """Without output of an earlier process."""
    generated: int
    remaining: int
    stop_token_ids: frozenset[int]
    matcher: "GrammarMatcher | None"

    @classmethod
    def start(cls, request: GenerationRequest, matcher: "GrammarMatcher | None", max_context: int) -> "_EchoRequest":
        prompt = request.prompt[: len(request.prompt) - request.generated_tokens]
        remaining = min(request.max_new_tokens, max_context - len(request.prompt))
        stops = frozenset(() if request.ignore_stop_tokens else request.stop_token_ids)
        return cls(request, prompt, request.generated_tokens, remaining, stops, matcher)

    @property
    def held(self) -> int:
        """Tokens of the prompt that have not been generated."""
        return max(len(self.prompt) - self.generated, 0)

    def prompt_logprobs(self) -> list[TokenLogprobs]:
        """Entries of the prompt that have not been delivered."""
        top = self.request.prompt_logprobs
        return [] if top is None else [_certain(token, top) for token in self.prompt[1 + self.request.scored_tokens :]]

    def next_token(self, allowed: frozenset[int] | None) -> int | None:
        """The next token, or None at the end. ``allowed`` are those of the grammar, if there is one."""
        endless = self.request.ignore_stop_tokens and bool(self.prompt if allowed is None else allowed - {_STOP})
        echoed = None
        if self.held or (endless and allowed is None):
            echoed = self.prompt[self.generated % len(self.prompt)]
        if allowed is not None and echoed not in allowed:
            if _STOP in allowed and not endless:
                return None
            echoed = next((byte for byte in _PREFERRED if byte in allowed), None)
        return None if echoed in self.stop_token_ids else echoed

    def accept(self, token: int) -> tuple[FinishReason, str] | None:
        """Count a token. Returns why it is the last one, if it is."""
        self.generated += 1
        self.remaining -= 1
        if self.matcher is not None:
            end = self.matcher.accept(token)
            if end is not None:
                return end
        elif not self.held and not self.request.ignore_stop_tokens:
            return "stop", ""
        return ("length", "") if self.remaining <= 0 else None


def _certain(token: int, top: int) -> TokenLogprobs:
    return token, 0.0, [(token, 0.0)][:top]


class EchoEngine:
    """``token_seconds`` is the duration of a step; ``max_context`` and ``max_running`` limit it as they would a model."""

    def __init__(self, *, token_seconds: float = 0.0, max_context: int, max_running: int) -> None:
        self._token_seconds = token_seconds
        self._max_context = max_context
        self._max_running = max_running
        self._changed = threading.Condition()
        self._running: dict[str, _EchoRequest] = {}
        self._waiting: dict[str, _EchoRequest] = {}
        self._finished: list[FinishedRequest] = []
        self._grammars: GrammarCompiler | None = None
        self._steps = 0
        self._tokens = 0

    @classmethod
    def from_entry(cls, entry: ModelEntry, token_seconds: float = 0.0) -> "EchoEngine":
        """The engine of an entry. ``token_seconds`` overrides the seconds of an ``echo:SECONDS`` url."""
        scheme, _, seconds = entry.url.partition(":")
        if scheme == "echo" and seconds and not token_seconds:
            try:
                token_seconds = float(seconds)
            except ValueError:
                raise ModelUnavailable(f"Model {entry.name}: {seconds!r} in its url is not a number of seconds.") from None
        return cls(token_seconds=token_seconds, max_context=entry.max_context or ECHO_CONTEXT, max_running=entry.max_in_flight)

    @property
    def attention_backend(self) -> str:
        return ""

    @property
    def max_context(self) -> int:
        return self._max_context

    def load(self, report: PhaseCallback) -> None:
        report("loading", "no model to load", 1.0)

    def add_request(self, request: GenerationRequest) -> None:
        # An empty prompt has an empty echo.
        problem = find_problem(request, vocabulary_size=BYTES, max_context=self._max_context) if request.prompt else ""
        matcher = None
        if request.grammar and not problem:
            # Not under the lock: it may take a while.
            matcher, problem = self._compile(request)
        with self._changed:
            if request.id in self._running or request.id in self._waiting:
                problem = "a request with this id is already running"
            if problem:
                self._finished.append((request.id, "failed", problem))
            elif matcher is not None and matcher.is_complete:
                self._finished.append((request.id, "stop", ""))
            else:
                self._waiting[request.id] = _EchoRequest.start(request, matcher, self._max_context)
            self._changed.notify()

    def _compile(self, request: GenerationRequest) -> tuple["GrammarMatcher | None", str]:
        """The matcher of a request, or what is wrong with its grammar."""
        from llguidance import LLTokenizer

        from workers.gpu.engine.grammars import GrammarCompiler, GrammarError

        if self._grammars is None:
            self._grammars = GrammarCompiler(lambda: LLTokenizer("byte"))
        stops = () if request.ignore_stop_tokens else request.stop_token_ids
        try:
            generated = request.prompt[len(request.prompt) - request.generated_tokens :]
            return self._grammars.compile(request.grammar, [*stops, _STOP], generated), ""
        except GrammarError as error:
            return None, str(error)

    def abort_request(self, id: str) -> None:
        with self._changed:
            if self._running.pop(id, None) or self._waiting.pop(id, None):
                self._finished.append((id, "cancelled", ""))
                self._changed.notify()

    def next_step(self, timeout: float) -> StepOutput | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._running or self._waiting or self._finished, timeout):
                return None
            while self._waiting and len(self._running) < self._max_running:
                id = next(iter(self._waiting))
                self._running[id] = self._waiting.pop(id)
            if self._running and not self._finished and self._token_seconds:
                # Waiting on the condition, so that an abort ends the step early and its request at once.
                self._changed.wait_for(lambda: self._finished, self._token_seconds)
            return self._step()

    def _step(self) -> StepOutput:
        step = StepOutput([], self._finished)
        self._finished = []
        allowed = _allowed_tokens((id, request.matcher) for id, request in self._running.items() if request.matcher is not None)
        for id, request in list(self._running.items()):
            if request.generated == request.request.generated_tokens and (entries := request.prompt_logprobs()):
                step.prompt_logprobs.append((id, entries))
            end: tuple[FinishReason, str] | None = ("length", "")
            if request.remaining > 0:
                token = request.next_token(allowed.get(id))
                end = ("stop", "") if token is None else request.accept(token)
                if token is not None:
                    step.tokens.append((id, [token]))
                    if request.request.logprobs is not None:
                        step.logprobs.append((id, [_certain(token, request.request.logprobs)]))
            if end is not None:
                step.finished.append((id, *end))
                del self._running[id]
        self._steps += 1
        self._tokens += len(step.tokens)
        return step

    def report_load(self) -> Heartbeat:
        with self._changed:
            held = sum(request.held for request in self._running.values())
            return Heartbeat(
                steps=self._steps,
                tokens=self._tokens,
                running=len(self._running),
                waiting=len(self._waiting),
                cache_use=min(1.0, held / (self._max_context * self._max_running)),
            )

    def unload(self) -> None:
        with self._changed:
            self._running.clear()
            self._waiting.clear()


def _allowed_tokens(matchers: Iterable[tuple[str, "GrammarMatcher"]]) -> dict[str, frozenset[int]]:
    """The bytes that each grammar allows next, and ``_STOP`` where it allows the end."""
    by_id = dict(matchers)
    if not by_id:
        return {}
    import numpy as np

    from workers.gpu.engine.grammars import fill_masks

    rows = np.unpackbits(fill_masks(list(by_id.values())).view(np.uint8), axis=1, bitorder="little")
    return {id: frozenset(np.flatnonzero(row).tolist()) for id, row in zip(by_id, rows, strict=True)}
