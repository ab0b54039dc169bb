"""Generation jobs: from a spec to tokens, from tokens to an answer.

All running generations share one engine; its receiving thread brings every step here, where tokens become text, stops are
found, and the clients' events are put out. Each job's own thread sleeps from the request to its end.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shared.errors import EngineFault, JobFailure, NanLogits, OutOfMemory, PromptTooLong
from shared.models.catalogue import ModelEntry
from shared.sessions.store import Sessions
from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.tokenization import TextCodec
from workers.rag_prompt import Passage, RagPrompt, build_rag_prompt
from workers.runtime.attempt import Attempt, Result

Message = dict[str, str]

LOAD_PATIENCE_SECONDS = 600.0


class Generation:
    """One request to the engine, and the answer as it grows."""

    def __init__(self, attempt: Attempt, text: TextCodec, stop: Sequence[str], *, in_conversation: bool) -> None:
        self.id = f"{attempt.job.id}/{attempt.job.attempt}"
        self._attempt = attempt
        self._decoder = text.decoder(stop, in_conversation=in_conversation)
        self._in_conversation = in_conversation
        self._space = ""
        self._pieces: list[str] = []
        self.tokens = 0
        self.reason: FinishReason | None = None
        self.detail = ""
        self.ended = threading.Event()

    @property
    def answer(self) -> str:
        return "".join(self._pieces)

    def feed(self, ids: list[int]) -> bool:
        """Take new tokens; whether the answer is complete with them."""
        if self.ended.is_set():
            return False
        piece, stopped = self._decoder.feed(ids)
        self.tokens += len(ids)
        self._emit(piece)
        if stopped:
            self._end("stop", "")
        return stopped

    def finish(self, reason: FinishReason, detail: str) -> None:
        """The engine has ended the request."""
        if not self.ended.is_set():
            self._emit(self._decoder.flush())
            self._end("stop" if self._decoder.stopped else reason, detail)

    def _emit(self, piece: str) -> None:
        if self._in_conversation:
            # White space is told when something follows it: many models end an answer with some.
            told = f"{self._space}{piece}".rstrip()
            self._space = f"{self._space}{piece}"[len(told) :]
            piece = told
        if piece:
            self._pieces.append(piece)
            self._attempt.send_text(piece)

    def _end(self, reason: FinishReason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        self.ended.set()


class GenerationHandler:
    """All generations that run on one engine."""

    def __init__(self, entry: ModelEntry, text: TextCodec, engine: EngineClient, sessions: Sessions) -> None:
        self._entry = entry
        self._text = text
        self._engine = engine
        self._sessions = sessions
        self._running: dict[str, Generation] = {}

    def on_step(self, step: StepOutput) -> None:
        """Take what one step of the engine gave. Called by the engine's receiving thread."""
        for request, ids in step.tokens:
            generation = self._running.get(request)
            if generation is not None and generation.feed(ids):
                self._engine.cancel(request)
        for request, reason, detail in step.finished:
            generation = self._running.get(request)
            if generation is not None:
                generation.finish(reason, detail)

    def run(self, attempt: Attempt) -> Result:
        """Run one generation job.

        Raises PromptTooLong, EngineFault (to be retried), OutOfMemory, NanLogits, ModelUnavailable, Stopped.
        """
        spec = attempt.spec
        wanted = int(spec.get("max_tokens") or self._entry.max_tokens)
        prompt, packed = self._prompt(attempt, wanted)
        context = self._text.max_context
        if len(prompt) >= context:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens, but model {self._entry.name} takes {context} for prompt and answer "
                "together; send less, or ask a model with a longer context",
                param="prompt",
                details={"prompt_tokens": len(prompt), "max_context": context},
            )
        bare = spec.get("prompt") is not None and packed is None
        generation = Generation(attempt, self._text, spec.get("stop") or (), in_conversation=not bare)
        request = GenerationRequest(
            id=generation.id,
            prompt=prompt,
            max_new_tokens=min(wanted, context - len(prompt)),
            stop_token_ids=list(self._text.stop_token_ids),
            temperature=float(spec.get("temperature", 0.7)),
            top_p=float(spec.get("top_p", 0.9)),
            top_k=int(spec.get("top_k", 0)),
            seed=spec.get("seed"),
        )
        self._running[generation.id] = generation
        try:
            self._engine.submit(request, timeout=LOAD_PATIENCE_SECONDS)
            attempt.on_stop(lambda: self._engine.cancel(generation.id))
            generation.ended.wait()
        finally:
            del self._running[generation.id]
        attempt.raise_if_stopped()
        if generation.reason not in ("stop", "length"):
            raise self._failure(generation, request)
        return self._result(attempt, generation, len(prompt), packed)

    def _failure(self, generation: Generation, request: GenerationRequest) -> JobFailure:
        name, reason, detail = self._entry.name, generation.reason, generation.detail
        prompt, answer, wanted = len(request.prompt), generation.tokens, request.max_new_tokens
        if reason == "out_of_memory":
            return OutOfMemory(
                f"model {name} ran out of memory on this job alone, with a prompt of {prompt} tokens and {answer} tokens of an "
                f"answer of up to {wanted} ({detail}); send a shorter prompt, ask for fewer max_tokens, or use a smaller model "
                "or a device with more memory",
                details={"prompt_tokens": prompt, "completion_tokens": answer, "max_tokens": wanted},
            )
        if reason == "nan_logits":
            return NanLogits(
                f"model {name} computed no numbers for this job: {detail}. Another prompt may do better; if it fails like this "
                "often, the weights are damaged, or their dtype in the models file is too narrow: try bfloat16 or float32"
            )
        if reason == "lost":
            return EngineFault(
                f"the engine of {name} died while it ran this job ({detail}); submit it again, and if it dies again, look into "
                "the log of its worker"
            )
        return EngineFault(
            f"the engine of {name} gave this job up: {detail or reason}; change the request, or look into the log of its worker"
        )

    def _result(self, attempt: Attempt, generation: Generation, prompt_tokens: int, packed: RagPrompt | None) -> Result:
        answer = generation.answer
        value: dict[str, Any] = {
            "text": answer,
            "finish_reason": generation.reason,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": generation.tokens,
                "total_tokens": prompt_tokens + generation.tokens,
            },
        }
        if packed is not None:
            value["citations"] = packed.citations
        messages: list[dict[str, str]] = []
        if attempt.job.session:
            now = datetime.now(UTC).isoformat()
            messages = [
                {"role": "user", "content": attempt.spec["message"], "timestamp": now},
                {"role": "assistant", "content": answer, "timestamp": now},
            ]
        # A token read costs about half of a token written, so the fair share counts it so (DESIGN of the scheduler).
        return Result(value=value, service=prompt_tokens + 2 * generation.tokens, messages=messages)

    def _prompt(self, attempt: Attempt, wanted: int) -> tuple[list[int], RagPrompt | None]:
        spec, passages = attempt.spec, attempt.context.get("passages")
        if spec.get("prompt") is not None and passages is None:
            return self._text.encode_prompt(spec["prompt"]), None
        messages: list[Message]
        if attempt.job.session:
            return self._conversation(attempt, wanted)
        messages = spec["messages"] if spec.get("messages") else [{"role": "user", "content": spec["prompt"]}]
        if passages is None:
            return self._text.encode_messages(messages), None
        packed = self._packed(messages, passages, wanted)
        return self._text.encode_messages(packed.messages), packed

    def _conversation(self, attempt: Attempt, wanted: int) -> tuple[list[int], RagPrompt | None]:
        """The history of the session, without its oldest messages where they no longer fit, and the new message."""
        history: list[Message] = [
            {"role": message["role"], "content": message["content"]} for message in self._sessions.messages(attempt.job.session)
        ]
        new: Message = {"role": "user", "content": attempt.spec["message"]}
        passages = attempt.context.get("passages")
        budget = max(self._text.max_context - wanted, self._text.max_context // 2)
        while True:
            messages = [*history, new]
            packed = self._packed(messages, passages, wanted) if passages is not None else None
            ids = self._text.encode_messages(packed.messages if packed else messages)
            if len(ids) <= budget or not history:
                return ids, packed
            history = history[2:]

    def _packed(self, messages: list[Message], passages: Sequence[Mapping[str, Any]], wanted: int) -> RagPrompt:
        used = len(self._text.encode_messages(messages))
        budget = self._text.max_context - used - min(wanted, self._text.max_context // 4)
        found = [Passage.from_json(passage) for passage in passages]
        return build_rag_prompt(messages, found, count_tokens=self._text.count, budget=budget)
