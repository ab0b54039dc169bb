"""Generation jobs: from a job's spec to a request of the engine, and from its tokens to the answer.

All running generations share one engine. Its supervisor thread delivers every step here, where tokens become text, stops are
found, and clients' events are sent. The thread of each job sleeps from the request to its end.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shared.errors import EngineFault, JobFailure, ModelUnavailable, NanLogits, OutOfMemory
from shared.ids import split_adapter
from shared.jobs.deltas import Delta, merge_deltas
from shared.jobs.models import Job
from shared.models.catalogue import ModelEntry
from shared.models.engine_features import features_of
from shared.sessions.store import Sessions
from workers.gpu.answer_grammar import build_grammar, template_of_answer
from workers.gpu.answer_parser import AnswerParser
from workers.gpu.device_time import DeviceTime
from workers.gpu.document_answers import answer_not_found, needs_rewriting, refuses_to_answer, rewrite_question
from workers.gpu.earlier_output import EarlierOutput, fingerprint_of, format_end, format_step, parse_output
from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput, TokenLogprobs
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.file_search import opening_delta, search_result
from workers.gpu.generation_request import build_request, max_tokens_of
from workers.gpu.generation_span import end_generation_span, generation_span
from workers.gpu.logprobs import LogprobQueue, describe_prompt_logprobs
from workers.gpu.prompt_encoding import EncodedPrompt, PromptEncoder, callable_tools, question_messages, turn_messages
from workers.gpu.token_timer import TokenTimer
from workers.gpu.tokenization import TextCodec
from workers.runtime.attempt import Attempt, Handover, Result

logger = logging.getLogger(__name__)

ENGINE_LOAD_SECONDS = 600.0


class Generation:
    """One request to the engine, and the answer that it has generated."""

    def __init__(
        self, attempt: Attempt, codec: TextCodec, prompt: EncodedPrompt, earlier: EarlierOutput | None, *, fingerprint: str
    ) -> None:
        """``earlier`` is what clients have read, if anything; it becomes a part of the answer without being sent again. ``fingerprint`` identifies
        what the tokens continue, for a later attempt."""
        spec = attempt.spec
        self.id = f"{attempt.job.id}/{attempt.job.attempt}"
        self.prompt = prompt
        self._attempt = attempt
        self._detokenizer = codec.make_detokenizer(
            spec.get("stop") or (), is_chat=prompt.is_chat, own_stops=not spec.get("ignore_eos")
        )
        # A raw prompt is continued, so its output is text as it comes.
        self._parser = _make_parser(attempt, codec, prompt) if prompt.is_chat else None
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._rest: Delta = {}
        self._logprobs = LogprobQueue(codec.token_bytes) if spec.get("logprobs") is not None else None
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.tokens = 0
        self.timer = TokenTimer()
        self.cached_tokens = 0
        self.reason: FinishReason | None = None
        self.detail = ""
        self.finished = threading.Event()
        self._output = ""
        # Tokens that are not decoded yet, as no delta is due. With stop texts or log-probabilities, each token is decoded at once.
        self._may_gather = self._logprobs is None and not self._detokenizer.has_stops
        self._gathered: list[int] = []
        self._repeated = 0
        echo: Delta = {"text": prompt.text} if spec.get("echo") and prompt.text else {}
        # Sent with the first delta, so that they are no first token. A delta of an earlier attempt had them.
        self._opening = {} if earlier is not None and attempt.job.has_deltas else opening_delta(attempt.context, prompt.rag)
        if earlier is not None:
            self._keep(echo)
            self._continue(earlier)
        else:
            self._output = f"{fingerprint}\n"
            self._send(echo)

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
        if self.reason is not None:
            return False
        if self._repeated:
            repeated = min(self._repeated, len(ids))
            self._repeated -= repeated
            ids, entries = ids[repeated:], entries[repeated:]
            if not ids:
                return False
        self.timer.count(len(ids))
        if self._may_gather:
            # Decoding and parsing the tokens of each step would delay the tokens of the jobs that somebody follows.
            self._gathered += ids
            if self._attempt.is_delta_due:
                self._add_gathered()
            return False
        return self._add(ids, entries)

    def _add_gathered(self) -> None:
        if self._gathered:
            ids, self._gathered = self._gathered, []
            self._add(ids)

    def _add(self, ids: Sequence[int], entries: Sequence[TokenLogprobs] = ()) -> bool:
        """Add tokens to the answer; return True if a stop text ended the generation."""
        delta, stopped = self._delta_of(ids, entries)
        self._output += format_step(ids, entries)
        self._send(delta)
        if stopped:
            self._set_finished("stop", "")
        return stopped

    def _continue(self, earlier: EarlierOutput) -> None:
        delta, stopped = self._delta_of(earlier.tokens, earlier.logprobs)
        self._keep(delta)
        if stopped:
            self._set_finished("stop", "")
        elif earlier.reason is not None:
            self._keep(self._final_delta())
            self._set_finished("stop" if self._detokenizer.stopped else earlier.reason, "")

    def _delta_of(self, ids: Sequence[int], entries: Sequence[TokenLogprobs]) -> tuple[Delta, bool]:
        """What new tokens add to the answer, and whether a stop text ended it."""
        delta: Delta = {}
        if self._logprobs is None:
            piece, stopped = self._detokenizer.add_tokens(ids)
        else:
            piece, stopped = self._add_tokens_with_logprobs(ids, entries, delta)
        self.tokens += len(ids)
        merge_deltas(delta, self._parse(piece))
        if stopped:
            merge_deltas(delta, self._finish_parsing())
        return delta, stopped

    def end(self, reason: FinishReason, detail: str) -> None:
        """End the generation, because the engine has. An answer that was broken off keeps what is held back: another attempt may continue."""
        if self.finished.is_set():
            return
        self._add_gathered()
        if self.reason is not None and reason in ("stop", "length"):
            self.finished.set()
            return
        if reason in ("stop", "length"):
            delta = self._final_delta()
            self._output += format_end(reason)
            self._send(delta)
        self._set_finished("stop" if self._detokenizer.stopped else reason, detail)

    def expect_repetition(self, tokens: int) -> None:
        """Drop the first tokens of the engine, which are those of an earlier attempt."""
        self._repeated = tokens

    def await_prompt_logprobs(self) -> None:
        """Wait for the engine again although the answer has ended, for the scores of the prompt alone."""
        self.finished.clear()

    def _final_delta(self) -> Delta:
        """What was held back in case that more tokens come."""
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
        return delta

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
        self._keep(delta)
        if delta and self._opening:
            delta, self._opening = {**self._opening, **delta}, {}
        if delta or self._output:
            self._attempt.send_delta(delta, self._output)
            self._output = ""

    def _keep(self, delta: Delta) -> None:
        if delta.get("text"):
            self._texts.append(delta["text"])
        if delta.get("reasoning"):
            self._reasonings.append(delta["reasoning"])
        merge_deltas(self._rest, {name: delta[name] for name in ("tool_calls", "logprobs") if name in delta})

    def _set_finished(self, reason: FinishReason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        self.finished.set()


def _make_parser(attempt: Attempt, codec: TextCodec, prompt: EncodedPrompt) -> AnswerParser:
    spec = attempt.spec
    template = template_of_answer(spec, codec.response_template)
    return AnswerParser(
        template,
        opening=prompt.opening if template is codec.response_template else "",
        tools=callable_tools(spec),
        single_call=spec.get("parallel_tool_calls") is False,
        # The calls of a job have the same ids in each attempt.
        id_seed=attempt.job.id,
    )


class GenerationHandler:
    """Runs generation jobs on one engine."""

    def __init__(self, entry: ModelEntry, codec: TextCodec, engine: EngineClient, sessions: Sessions) -> None:
        self.codec = codec
        self._entry = entry
        self._engine = engine
        self._sessions = sessions
        self._prompt_encoder = PromptEncoder(codec, sessions)
        self._running: dict[str, Generation] = {}
        self._device_time = DeviceTime(entry.gpus)

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
        cached = dict(step.cached_tokens)
        for request, reason, detail in step.finished:
            generation = self._running.get(request)
            if generation is not None:
                generation.cached_tokens = cached.get(request, 0)
                generation.end(reason, detail)

    def run(self, attempt: Attempt) -> Result | Handover:
        """Run one generation job, with what precedes it if it answers from documents. Raises the same as ``run_generation``."""
        if needs_rewriting(attempt):
            messages = question_messages(attempt, self._sessions)
            return rewrite_question(attempt, messages, self.run_generation, {"template_options": {"enable_thinking": False}})
        return answer_not_found(attempt) if refuses_to_answer(attempt) else self.run_generation(attempt)

    def run_generation(self, attempt: Attempt) -> Result:
        """Generate the answer of one job.

        Raises InvalidValue, PromptTooLong, EngineFault (to be retried), OutOfMemory, NanLogits, ModelUnavailable, AttemptStopped.
        """
        spec = attempt.spec
        adapter = self._adapter_of(attempt.job)
        prompt = self._prompt_encoder.encode_prompt(attempt, max_tokens_of(spec, self._entry))
        request = build_request(
            f"{attempt.job.id}/{attempt.job.attempt}",
            prompt.ids,
            spec,
            owner=attempt.job.owner,
            entry=self._entry,
            codec=self.codec,
            grammar=build_grammar(spec, prompt, self.codec),
            adapter=adapter,
        )
        weights = f"{self._entry.url}@{self._entry.revision}" + (f"+{self._entry.adapters[adapter]}" if adapter else "")
        fingerprint = fingerprint_of(weights, prompt.ids)
        earlier = self._earlier_output(attempt, fingerprint, request)
        generation = Generation(attempt, self.codec, prompt, earlier, fingerprint=fingerprint)
        if earlier is not None and earlier.tokens:
            logger.info("job %s continues after %d tokens of an earlier attempt", attempt.job.id, len(earlier.tokens))
            remaining = request.max_new_tokens - len(earlier.tokens)
            if remaining <= 0:
                generation.end("length", "")  # no effect if it has ended before
            if request.deterministic:
                # Read as a prompt, its own tokens would be computed in steps of another shape.
                generation.expect_repetition(len(earlier.tokens))
            else:
                request = replace(
                    request,
                    prompt=[*request.prompt, *earlier.tokens],
                    generated_tokens=len(earlier.tokens),
                    max_new_tokens=remaining,
                )
            if generation.reason is not None and request.prompt_logprobs is not None:
                generation.await_prompt_logprobs()
                request = replace(request, max_new_tokens=0)
        if not generation.finished.is_set():
            self._generate(attempt, generation, request)
        attempt.raise_if_stopped()
        if generation.reason not in ("stop", "length"):
            raise self._failure(generation, request)
        return self._result(attempt, generation, request)

    def _adapter_of(self, job: Job) -> str:
        """The adapter that a job names. Raises ModelUnavailable if it has left the models file since."""
        adapter = split_adapter(job.model)[1]
        if adapter and adapter not in self._entry.adapters:
            raise ModelUnavailable(f"Model {self._entry.name} no longer has the adapter {adapter}: it has left the models file.")
        return adapter

    def _earlier_output(self, attempt: Attempt, fingerprint: str, request: GenerationRequest) -> EarlierOutput | None:
        """What this attempt continues. If it cannot continue what clients have read, they are told so."""
        earlier = parse_output(attempt.job.output, fingerprint) if attempt.job.output else None
        is_adjusted = bool(request.grammar or request.presence_penalty or request.frequency_penalty)
        if earlier is not None and earlier.reason is None and is_adjusted and not features_of(self._entry).continues_adjusted:
            earlier = None
        if earlier is None and attempt.job.has_deltas:
            attempt.void_deltas()
        return earlier

    def _generate(self, attempt: Attempt, generation: Generation, request: GenerationRequest) -> None:
        """Run a request to its end."""
        usage = attempt.usage
        self._running[request.id] = generation
        try:
            with generation_span(self._entry.name, len(request.prompt)) as span:
                self._engine.submit_request(request, timeout=ENGINE_LOAD_SECONDS)
                with self._device_time.measure(usage):
                    usage.prompt_tokens = len(generation.prompt.ids)
                    attempt.on_stop(lambda: self._engine.cancel_request(request.id))
                    generation.finished.wait()
                end_generation_span(span, generation.timer, generation.tokens, generation.reason or "")
        finally:
            # The rest of what the cache had are tokens of an earlier attempt.
            usage.cached_tokens = min(generation.cached_tokens, usage.prompt_tokens)
            usage.completion_tokens = generation.tokens
            del self._running[request.id]

    def _failure(self, generation: Generation, request: GenerationRequest) -> JobFailure:
        name, reason, detail = self._entry.name, generation.reason, generation.detail
        prompt_tokens, tokens = len(generation.prompt.ids), generation.tokens
        max_tokens = request.generated_tokens + request.max_new_tokens
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
        prompt, calls = generation.prompt.ids, generation.tool_calls
        prompt_tokens = len(prompt)
        attempt.usage.prompt_tokens, attempt.usage.completion_tokens = prompt_tokens, generation.tokens
        value: dict[str, Any] = {
            "text": generation.text,
            "finish_reason": "tool_calls" if calls and generation.reason == "stop" else generation.reason,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": generation.tokens,
                "total_tokens": prompt_tokens + generation.tokens,
            },
        }
        value |= search_result(attempt.context, generation.prompt.rag, generation.text)
        if generation.reasoning:
            value["reasoning"] = generation.reasoning
        if calls:
            value["tool_calls"] = calls
        if generation.logprobs is not None:
            value["logprobs"] = generation.logprobs
        if request.prompt_logprobs is not None:
            value["prompt_logprobs"] = describe_prompt_logprobs(
                prompt, generation.prompt_logprobs[: prompt_tokens - 1], self.codec.token_bytes
            )
        messages = turn_messages(attempt.job, attempt.spec, value)
        # A prompt token costs about half as much as a generated one, and counts as half in the fair share.
        return Result(
            value=value,
            service=prompt_tokens + 2 * generation.tokens,
            token_seconds=generation.timer.seconds_per_token,
            messages=messages,
        )
