"""Generation jobs: from a job's spec to a request of the engine, and from its tokens to the answer.

All running generations share one engine. Its supervisor thread delivers every step here, where tokens become text, stops are
found, and clients' events are sent. The thread of each job sleeps from the request to its end.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shared.errors import EngineFault, JobFailure, NanLogits, OutOfMemory
from shared.jobs.deltas import Delta, merge_deltas
from shared.models.catalogue import ModelEntry
from shared.sessions.store import Sessions
from workers.gpu.answer_grammar import build_grammar, template_of_answer
from workers.gpu.answer_parser import AnswerParser
from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput, TokenLogprobs
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.generation_request import build_request, max_tokens_of
from workers.gpu.logprobs import LogprobQueue, describe_prompt_logprobs
from workers.gpu.prompt_encoding import EncodedPrompt, PromptEncoder, callable_tools
from workers.gpu.tokenization import TextCodec
from workers.runtime.attempt import Attempt, Result

ENGINE_LOAD_SECONDS = 600.0


class Generation:
    """One request to the engine, and the answer that it has generated."""

    def __init__(self, attempt: Attempt, codec: TextCodec, prompt: EncodedPrompt) -> None:
        spec = attempt.spec
        self.id = f"{attempt.job.id}/{attempt.job.attempt}"
        self.prompt = prompt
        self._attempt = attempt
        self._detokenizer = codec.make_detokenizer(
            spec.get("stop") or (), is_chat=prompt.is_chat, own_stops=not spec.get("ignore_eos")
        )
        # A raw prompt is continued, so its output is text as it comes.
        self._parser = _make_parser(codec, prompt, spec) if prompt.is_chat else None
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._rest: Delta = {}
        self._logprobs = LogprobQueue(codec.token_bytes) if spec.get("logprobs") is not None else None
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.tokens = 0
        self.reason: FinishReason | None = None
        self.detail = ""
        self.finished = threading.Event()
        if spec.get("echo") and prompt.text:
            self._send({"text": prompt.text})

    @property
    def text(self) -> str:
        """The text of the answer so far, without reasoning and tool calls."""
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasonings)

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls so far, as OpenAI's clients read them."""
        return [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in self._rest.get("tool_calls", ())
        ]

    @property
    def logprobs(self) -> list[dict[str, Any]] | None:
        """Log-probabilities of the answer's tokens; None if the job did not ask for them."""
        return None if self._logprobs is None else list(self._rest.get("logprobs", ()))

    def add_tokens(self, ids: list[int], entries: Sequence[TokenLogprobs] = ()) -> bool:
        """Add new tokens; return True if a stop text ended the generation."""
        if self.finished.is_set():
            return False
        delta: Delta = {}
        if self._logprobs is None:
            piece, stopped = self._detokenizer.add_tokens(ids)
        else:
            piece, stopped = self._add_tokens_with_logprobs(ids, entries, delta)
        self.tokens += len(ids)
        merge_deltas(delta, self._parse(piece))
        if stopped:
            merge_deltas(delta, self._finish_parsing())
        self._send(delta)
        if stopped:
            self._set_finished("stop", "")
        return stopped

    def end(self, reason: FinishReason, detail: str) -> None:
        """End the generation, because the engine has."""
        if not self.finished.is_set():
            delta = self._parse(self._detokenizer.flush())
            merge_deltas(delta, self._finish_parsing())
            if self._logprobs is not None:
                detokenizer = self._detokenizer
                released = (
                    self._logprobs.release_before(detokenizer.released)
                    if detokenizer.stopped
                    else self._logprobs.release(detokenizer.received)
                )
                merge_deltas(delta, {"logprobs": released})
            self._send(delta)
            self._set_finished("stop" if self._detokenizer.stopped else reason, detail)

    def _add_tokens_with_logprobs(self, ids: Sequence[int], entries: Sequence[TokenLogprobs], delta: Delta) -> tuple[str, bool]:
        """Add tokens one by one, because each must be found in the text again if a stop text cuts it."""
        assert self._logprobs is not None
        pieces, detokenizer = [], self._detokenizer
        for id, entry in zip(ids, entries, strict=False):
            start = detokenizer.received
            pieces.append(detokenizer.add_tokens([id])[0])
            self._logprobs.add(entry, start, detokenizer.received)
            if detokenizer.stopped:
                merge_deltas(delta, {"logprobs": self._logprobs.release_before(detokenizer.released)})
                break
            merge_deltas(delta, {"logprobs": self._logprobs.release(detokenizer.released)})
        # The text must not depend on whether the engine can report log-probabilities.
        if not detokenizer.stopped and len(ids) > len(entries):
            pieces.append(detokenizer.add_tokens(ids[len(entries) :])[0])
        return "".join(pieces), detokenizer.stopped

    def _parse(self, piece: str) -> Delta:
        if self._parser is not None:
            return self._parser.feed(piece) if piece else {}
        return {"text": piece} if piece else {}

    def _finish_parsing(self) -> Delta:
        return self._parser.finish() if self._parser is not None else {}

    def _send(self, delta: Delta) -> None:
        if not delta:
            return
        if delta.get("text"):
            self._texts.append(delta["text"])
        if delta.get("reasoning"):
            self._reasonings.append(delta["reasoning"])
        merge_deltas(self._rest, {name: delta[name] for name in ("tool_calls", "logprobs") if name in delta})
        self._attempt.send_delta(delta)

    def _set_finished(self, reason: FinishReason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        self.finished.set()


def _make_parser(codec: TextCodec, prompt: EncodedPrompt, spec: Mapping[str, Any]) -> AnswerParser:
    template = template_of_answer(spec, codec.response_template)
    return AnswerParser(
        template,
        opening=prompt.opening if template is codec.response_template else "",
        tools=callable_tools(spec),
        single_call=spec.get("parallel_tool_calls") is False,
    )


class GenerationHandler:
    """Runs generation jobs on one engine."""

    def __init__(self, entry: ModelEntry, codec: TextCodec, engine: EngineClient, sessions: Sessions) -> None:
        self.codec = codec
        self._entry = entry
        self._engine = engine
        self._prompt_encoder = PromptEncoder(codec, sessions)
        self._running: dict[str, Generation] = {}

    def on_step(self, step: StepOutput) -> None:
        """Pass the output of one engine step to its generations. Called by the engine supervisor's thread."""
        for request, entries in step.prompt_logprobs:
            generation = self._running.get(request)
            if generation is not None:
                generation.prompt_logprobs += entries
        logprobs: dict[str, list[TokenLogprobs]] = {}
        for request, entries in step.logprobs:
            logprobs.setdefault(request, []).extend(entries)
        for request, ids in step.tokens:
            generation = self._running.get(request)
            entries = logprobs.get(request, [])
            logprobs[request] = entries[len(ids) :]
            if generation is not None and generation.add_tokens(ids, entries[: len(ids)]):
                self._engine.cancel_request(request)
        for request, reason, detail in step.finished:
            generation = self._running.get(request)
            if generation is not None:
                generation.end(reason, detail)

    def run_generation(self, attempt: Attempt) -> Result:
        """Run one generation job.

        Raises InvalidValue, PromptTooLong, EngineFault (to be retried), OutOfMemory, NanLogits, ModelUnavailable, AttemptStopped.
        """
        spec = attempt.spec
        prompt = self._prompt_encoder.encode_prompt(attempt, max_tokens_of(spec, self._entry))
        request = build_request(
            f"{attempt.job.id}/{attempt.job.attempt}",
            prompt.ids,
            spec,
            owner=attempt.job.owner,
            entry=self._entry,
            codec=self.codec,
            grammar=build_grammar(spec, prompt, self.codec),
        )
        generation = Generation(attempt, self.codec, prompt)
        self._running[request.id] = generation
        try:
            self._engine.submit_request(request, timeout=ENGINE_LOAD_SECONDS)
            attempt.on_stop(lambda: self._engine.cancel_request(request.id))
            generation.finished.wait()
        finally:
            del self._running[request.id]
        attempt.raise_if_stopped()
        if generation.reason not in ("stop", "length"):
            raise self._failure(generation, request)
        return self._result(attempt, generation, request)

    def _failure(self, generation: Generation, request: GenerationRequest) -> JobFailure:
        name, reason, detail = self._entry.name, generation.reason, generation.detail
        prompt_tokens, tokens, max_tokens = len(request.prompt), generation.tokens, request.max_new_tokens
        if reason == "out_of_memory":
            return OutOfMemory(
                f"Model {name} ran out of memory on this job alone, with a prompt of {prompt_tokens} tokens and {tokens} of up to "
                f"{max_tokens} generated tokens ({detail}). Send a shorter prompt, reduce max_tokens, or use a smaller model or "
                "a device with more memory.",
                details={"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "max_tokens": max_tokens},
            )
        if reason == "nan_logits":
            return NanLogits(
                f"Model {name} produced invalid logits for this job: {detail}. Try another prompt. If this happens often, the "
                "weights are damaged or their dtype in the models file has too small a range: try bfloat16 or float32."
            )
        if reason == "lost":
            return EngineFault(
                f"The engine of model {name} died while it ran this job ({detail}). Submit the job again; if the engine dies "
                "again, see the log of its worker."
            )
        return EngineFault(
            f"The engine of model {name} could not run this job: {detail or reason}. Change the request, or see the log of its worker."
        )

    def _result(self, attempt: Attempt, generation: Generation, request: GenerationRequest) -> Result:
        prompt_tokens, calls = len(request.prompt), generation.tool_calls
        value: dict[str, Any] = {
            "text": generation.text,
            "finish_reason": "tool_calls" if calls and generation.reason == "stop" else generation.reason,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": generation.tokens,
                "total_tokens": prompt_tokens + generation.tokens,
            },
        }
        if generation.prompt.rag is not None:
            value["citations"] = generation.prompt.rag.citations
        if generation.reasoning:
            value["reasoning"] = generation.reasoning
        if calls:
            value["tool_calls"] = calls
        if generation.logprobs is not None:
            value["logprobs"] = generation.logprobs
        if request.prompt_logprobs is not None:
            value["prompt_logprobs"] = describe_prompt_logprobs(
                request.prompt, generation.prompt_logprobs, self.codec.token_bytes
            )
        messages: list[dict[str, str]] = []
        if attempt.job.session:
            now = datetime.now(UTC).isoformat()
            messages = [
                {"role": "user", "content": attempt.spec["message"], "timestamp": now},
                {"role": "assistant", "content": generation.text, "timestamp": now},
            ]
        # A prompt token costs about half as much as a generated one, and counts as half in the fair share.
        return Result(value=value, service=prompt_tokens + 2 * generation.tokens, messages=messages)
