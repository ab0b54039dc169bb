"""Generation jobs on a server: text in and text out, so neither tokens nor an engine process are involved."""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from shared.errors import EngineFault
from shared.models.catalogue import ModelEntry
from shared.models.engine_features import ENCODE, features_of
from shared.sessions.store import Sessions
from workers.gpu.device_time import DeviceTime
from workers.gpu.document_answers import answer_not_found, needs_rewriting, refuses_to_answer, rewrite_question
from workers.gpu.file_search import opening_delta, search_result
from workers.gpu.generation_request import max_tokens_of
from workers.gpu.generation_span import end_generation_span, generation_span
from workers.gpu.model_server.answer import EarlierText, ServerAnswer, fingerprint_of, format_delta, parse_record
from workers.gpu.model_server.connection import ServerConnection
from workers.gpu.model_server.prompts import DEFAULT_CONTEXT, build_prompt, estimate_prompt
from workers.gpu.model_server.request_body import MAX_TOKENS_FIELDS, ServerPrompt, build_body
from workers.gpu.model_server.server_tokenizer import ServerTokenizer
from workers.gpu.prompt_encoding import callable_tools, question_messages, turn_messages
from workers.runtime.attempt import Attempt, Handover, Result

logger = logging.getLogger(__name__)


class ServerGenerationHandler:
    """Runs generation jobs on the server of one model."""

    def __init__(self, entry: ModelEntry, connection: ServerConnection, sessions: Sessions) -> None:
        self._entry = entry
        self._features = features_of(entry)
        self._connection = connection
        self._tokenizer = ServerTokenizer(entry, connection)
        self._sessions = sessions
        self.max_context = entry.max_context or DEFAULT_CONTEXT
        self.load = ServerLoad()
        self._device_time = DeviceTime(entry.gpus)

    def run(self, attempt: Attempt) -> Result | Handover:
        """Run one generation job, with what precedes it if it answers from documents. Raises the same as ``run_generation``."""
        if needs_rewriting(attempt):
            return rewrite_question(attempt, question_messages(attempt, self._sessions), self.run_generation, {})
        return answer_not_found(attempt) if refuses_to_answer(attempt) else self.run_generation(attempt)

    def run_generation(self, attempt: Attempt) -> Result:
        """Generate the answer of one job.

        Raises InvalidValue, PromptTooLong, ServerAway, EngineFault (to be retried), ModelUnavailable and AttemptStopped.
        """
        self.load.running += 1
        try:
            with generation_span(self._entry.name) as span:
                with self._device_time.measure(attempt.usage):
                    answer, prompt = self._connection.run(self._generate(attempt))
                end_generation_span(span, answer.timer, answer.total_tokens, answer.finish_reason)
        except CancelledError:
            attempt.raise_if_stopped()
            raise EngineFault(
                f"The connection to the server of model {self._entry.name} was closed, as its worker ends."
            ) from None
        finally:
            self.load.running -= 1
        attempt.raise_if_stopped()
        return self._result(attempt, answer, prompt)

    def run_tokenization(self, attempt: Attempt) -> Mapping[str, Any]:
        """Run one job of kind ``tokenize``. Raises the same."""
        return self._connection.run(self._tokenizer.run(attempt.spec))

    async def _generate(self, attempt: Attempt) -> tuple[ServerAnswer, ServerPrompt]:
        task = asyncio.current_task()
        assert task is not None
        attempt.on_stop(lambda: self._connection.cancel(task))
        spec, max_tokens = attempt.spec, max_tokens_of(attempt.spec, self._entry)
        # Redis is read in a thread, as this loop serves all jobs.
        prompt = await asyncio.to_thread(
            build_prompt, attempt, self._sessions, max_context=self.max_context, max_tokens=max_tokens
        )
        if spec.get("echo") and isinstance(prompt.raw, list):
            prompt = replace(prompt, text=await self._tokenizer.decode(prompt.raw))
        body = build_body(spec, prompt, self._entry)
        fingerprint = fingerprint_of(self._entry.url, body) if self._can_continue(spec, prompt) else ""
        earlier = parse_record(attempt.job.output, fingerprint) if fingerprint and attempt.job.output else None
        if earlier is None or earlier.delta.get("reasoning"):
            answer = self._begin(attempt, prompt, fingerprint)
        else:
            earlier = await self._with_token_count(earlier, prompt, spec)
            logger.info("job %s continues after %d tokens of an earlier attempt", attempt.job.id, earlier.tokens)
            answer = ServerAnswer(earlier)
            if earlier.tokens >= max_tokens:
                answer.finish_reason = "length"
                return answer, prompt
            body = self._continued(body, earlier, max_tokens, echoes=bool(spec.get("echo")))
        # A delta of the attempt that is continued had them.
        opening = {} if earlier is not None and attempt.job.has_deltas else opening_delta(attempt.context, prompt.rag)
        attempt.usage.prompt_tokens = estimate_prompt(prompt)
        async with aclosing(self._connection.stream(prompt.path, body)) as chunks:
            async for chunk in chunks:
                delta, tokens = answer.add_chunk(chunk)
                answer.timer.count(tokens)
                self.load.chunks += 1
                self.load.tokens += tokens
                attempt.usage.completion_tokens = answer.total_tokens
                if delta:
                    attempt.send_delta({**opening, **delta}, format_delta(delta, tokens) if fingerprint else "")
                    opening = {}
        if not answer.finish_reason:
            raise self._connection.fault("its answer has no end")
        return answer, prompt

    def _can_continue(self, spec: Mapping[str, Any], prompt: ServerPrompt) -> bool:
        """Whether a later attempt could continue the answer: a server takes text only, and starts a call or a schema anew."""
        if spec.get("constraint") or callable_tools(spec):
            return False
        return self._features.continues_chat if prompt.is_chat else isinstance(prompt.raw, str)

    def _begin(self, attempt: Attempt, prompt: ServerPrompt, fingerprint: str) -> ServerAnswer:
        """Begin a new answer, in place of what clients have read, if anything."""
        if attempt.job.has_deltas:
            attempt.void_deltas()
        echo = {"text": prompt.text} if attempt.spec.get("echo") and prompt.text else {}
        record = f"{fingerprint}\n" if fingerprint else ""
        if echo and record:
            record += format_delta(echo, 0)
        if echo or record:
            attempt.send_delta(echo, record)
        return ServerAnswer(EarlierText(echo))

    async def _with_token_count(self, earlier: EarlierText, prompt: ServerPrompt, spec: Mapping[str, Any]) -> EarlierText:
        """The earlier text with its number of tokens, counted by the server if it can: a chunk may have had several."""
        text = str(earlier.delta.get("text", ""))
        if spec.get("echo"):
            text = text.removeprefix(prompt.text)
        if text and ENCODE in self._features.tokenizer:
            return replace(
                earlier, tokens=len((await self._tokenizer.encode({"prompt": text, "add_special_tokens": False}))["tokens"])
            )
        return earlier

    def _continued(self, body: Mapping[str, Any], earlier: EarlierText, max_tokens: int, *, echoes: bool) -> dict[str, Any]:
        """The request for the rest of an answer."""
        text = earlier.delta.get("text", "")
        changed: dict[str, Any] = {name: max_tokens - earlier.tokens for name in MAX_TOKENS_FIELDS if name in body}
        if "messages" not in body:
            # An echo is the prompt itself.
            changed["prompt"] = text if echoes else body["prompt"] + text
        elif text:
            changed["messages"] = [*body["messages"], {"role": "assistant", "content": text}]
            # llama.cpp does it without being asked.
            if self._entry.server != "llama.cpp":
                changed |= {"continue_final_message": True, "add_generation_prompt": False}
        return {**body, **changed}

    def _result(self, attempt: Attempt, answer: ServerAnswer, prompt: ServerPrompt) -> Result:
        calls = [
            {"id": call.get("id") or f"call_{attempt.job.id}_{index}", "type": "function", "function": _function(call)}
            for index, call in enumerate(answer.whole.get("tool_calls", ()))
        ]
        tokens, prompt_tokens = answer.total_tokens, answer.prompt_tokens or estimate_prompt(prompt)
        self.load.prompt_tokens += prompt_tokens
        self.load.cached_tokens += answer.cached_tokens
        usage = attempt.usage
        usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens = prompt_tokens, answer.cached_tokens, tokens
        value: dict[str, Any] = {
            "text": answer.whole.get("text", ""),
            "finish_reason": "tool_calls" if calls and answer.finish_reason == "stop" else answer.finish_reason,
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens},
        }
        value |= search_result(attempt.context, prompt.rag, value["text"])
        if answer.whole.get("reasoning"):
            value["reasoning"] = answer.whole["reasoning"]
        if calls:
            value["tool_calls"] = calls
        if attempt.spec.get("logprobs") is not None:
            value["logprobs"] = answer.whole.get("logprobs", [])
        messages = turn_messages(attempt.job, attempt.spec, value)
        # As for the other engines: a prompt token costs about half as much as a generated one.
        return Result(
            value=value,
            service=prompt_tokens + 2 * tokens,
            token_seconds=answer.timer.seconds_per_token,
            messages=messages,
        )


class ServerLoad:
    """Counters since the worker started, as the heartbeats of an engine process have them."""

    def __init__(self) -> None:
        self.running = self.chunks = self.tokens = self.prompt_tokens = self.cached_tokens = 0


def _function(call: Mapping[str, Any]) -> dict[str, str]:
    return {"name": call.get("name", ""), "arguments": call.get("arguments") or "{}"}
