"""vLLM engine: vLLM's AsyncLLM behind the engine protocol, with token ids in and token ids out.

vLLM schedules, batches and samples in processes that it starts itself. Its event loop runs in a thread here. It is used through AsyncEngineArgs,
AsyncLLM, SamplingParams, StructuredOutputsParams and LoRARequest alone, which are the same from vLLM 0.23 on.
"""

import asyncio
import gc
import itertools
import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.messages import FinishReason, GenerationRequest, Heartbeat, StepOutput, TokenLogprobs
from workers.gpu.engine.protocol import EngineDied, PhaseCallback
from workers.gpu.engine.request_checks import find_problem
from workers.gpu.engine.vllm_options import (
    describe_logprobs,
    describe_prompt,
    engine_arguments,
    read_adapter_rank,
    sampling_arguments,
)
from workers.gpu.hardware.devices import detect_gpus

logger = logging.getLogger("engine")

# Longer messages repeat the request.
MAX_DETAIL = 300
WARM_UP_SECONDS, WARM_UP_PROMPT = 600.0, 16
WARM_UPS: tuple[Mapping[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0, "top_p": 0.9, "top_k": 40, "seed": 1},
    {"temperature": 1.0, "min_p": 0.1, "repetition_penalty": 1.1, "logprobs": 1},
)
# Between the outputs that are read of a request: the larger of a minimum and a time for each running request. Meanwhile vLLM merges its
# tokens. Reading each token by itself made 512 requests of a 1B model slower by an eighth.
PAUSE_SECONDS, PAUSE_SECONDS_PER_REQUEST = 0.01, 0.0001
# llguidance, which reads the grammars that the worker writes.
GRAMMAR_BACKEND = "guidance"


@dataclass(eq=False)
class _Running:
    """A request in vLLM, under its own number, so that a reused id is never confused with the earlier request."""

    request: GenerationRequest
    number: str
    task: "asyncio.Task[None] | None" = None
    held: int = 0
    """Tokens in the cache; 0 before the first output."""
    ended: bool = False


@dataclass
class _Output:
    """What a request has generated in one step."""

    running: _Running
    tokens: list[int]
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    end: tuple[FinishReason, str] | None = None


class VllmEngine:
    """Serves ``entry`` from ``folder``, with the LoRA adapters in the folders of ``adapters``.

    With ``in_flight`` below the entry's ``max_in_flight``, it takes less memory.
    """

    def __init__(self, entry: ModelEntry, folder: Path, in_flight: int = 0, adapters: Mapping[str, Path] | None = None) -> None:
        self._entry = entry
        self._folder = folder
        self._adapters = dict(adapters or {})
        self._in_flight = in_flight or entry.max_in_flight
        self._loop: asyncio.AbstractEventLoop
        self._changed = threading.Condition()
        # Guarded by the condition:
        self._requests: dict[str, _Running] = {}
        self._step = StepOutput([], [])
        self._death = ""
        # Of the loop's thread:
        self._turn: list[_Output] = []
        self._pause: asyncio.Future[None] | None = None
        self._numbers = itertools.count()
        self._steps = self._tokens = self._prompt_tokens = self._cached_tokens = self._held = self._capacity = 0
        self._vocabulary_size = self._max_context = 0
        self._llm: Any = None
        self._make_params: Any = None
        self._lora_requests: dict[str, Any] = {}

    # Start

    @property
    def attention_backend(self) -> str:
        return ""

    @property
    def max_context(self) -> int:
        return self._max_context

    def load(self, report: PhaseCallback) -> None:
        gpus = detect_gpus().read_gpus()
        if self._entry.gpus and len(gpus) < self._entry.gpus:
            raise ModelUnavailable(
                f"Model {self._entry.name} needs {self._entry.gpus} GPUs (gpus) and its engine sees {len(gpus)}."
            )
        report("loading", "importing vLLM", 0.0)
        ranks = [read_adapter_rank(folder) for folder in self._adapters.values()]
        arguments = engine_arguments(self._entry, self._folder, self._in_flight, gpus, adapter_ranks=ranks)
        make = self._import_vllm(arguments)
        self._loop = _new_event_loop()
        threading.Thread(target=self._run_loop, name="vllm", daemon=True).start()
        report("loading", "starting vLLM", 0.1)
        # In the thread of the loop: vLLM's processes end with the thread that has started them.
        try:
            self._llm = self._call(make)
        except Exception as error:
            # Most are from vLLM's own processes, which have logged the cause.
            logger.exception("model %s: vLLM could not start", self._entry.name)
            raise ModelUnavailable(
                f"Model {self._entry.name}: vLLM could not start: {_describe(error, lines=3).rstrip('.')}. See the log of the worker."
            ) from error
        config = self._llm.vllm_config
        self._max_context = int(config.model_config.max_model_len)
        self._vocabulary_size = int(config.model_config.get_vocab_size())
        self._capacity = (config.cache_config.num_gpu_blocks or 0) * (config.cache_config.block_size or 0)
        report("warming", "generating from a short prompt", 0.9)
        # Each adapter is read once, so that one that does not fit the model is reported now, not by its first job.
        for options in (*WARM_UPS, *({"adapter": name} for name in self._adapters)):
            self._warm_up(options)
        # Long-lived objects stay out of garbage collection, whose pauses would hold up the loop.
        gc.collect()
        gc.freeze()

    def _import_vllm(self, arguments: dict[str, Any]) -> Any:
        """A function that starts vLLM. Raises ModelUnavailable for arguments that this vLLM does not have."""
        _set_environment()
        from vllm import SamplingParams
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine.async_llm import AsyncLLM

        unknown = arguments.keys() - {known.name for known in fields(AsyncEngineArgs)}
        if unknown:
            raise ModelUnavailable(
                f"Model {self._entry.name}: engine_args has {', '.join(sorted(unknown))}, which this version of vLLM does not know."
            )

        def make_params(request: GenerationRequest) -> Any:
            grammar = StructuredOutputsParams(grammar=request.grammar) if request.grammar else None
            return SamplingParams(**sampling_arguments(request), output_kind=RequestOutputKind.DELTA, structured_outputs=grammar)

        def make() -> Any:
            engine_args = AsyncEngineArgs(**arguments)
            engine_args.structured_outputs_config.backend = GRAMMAR_BACKEND
            return AsyncLLM.from_engine_args(engine_args)

        self._make_params = make_params
        # vLLM counts adapters from 1.
        self._lora_requests = {
            name: LoRARequest(name, number, str(folder)) for number, (name, folder) in enumerate(self._adapters.items(), 1)
        }
        return make

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, function: Any) -> Any:
        """Run a function in the loop's thread and return its result."""
        result: Future[Any] = Future()

        async def run() -> None:
            try:
                result.set_result(function())
            except Exception as error:  # noqa: BLE001 - it is raised again where the result is awaited
                result.set_exception(error)

        asyncio.run_coroutine_threadsafe(run(), self._loop)
        return result.result()

    def _warm_up(self, options: Mapping[str, Any]) -> None:
        """Generate two tokens, so that no job waits for what vLLM compiles on first use."""
        self.add_request(GenerationRequest("warm-up", [1] * min(WARM_UP_PROMPT, self._max_context - 2), 2, [], **options))
        while True:
            step = self.next_step(WARM_UP_SECONDS)
            if step is None:
                raise EngineDied(f"a short request took longer than {WARM_UP_SECONDS:.0f} s")
            for _, reason, detail in step.finished:
                if reason != "length":
                    raise EngineDied(f"a short request finished as {reason}: {detail}")
                return

    # Requests

    def add_request(self, request: GenerationRequest) -> None:
        problem = find_problem(
            request, vocabulary_size=self._vocabulary_size, max_context=self._max_context, adapters=self._adapters
        )
        if request.deterministic:
            problem = problem or "the engine vllm cannot compute a request in separate steps (deterministic)"
        if request.grammar and request.generated_tokens:
            problem = problem or "the engine vllm cannot continue an output that has a grammar"
        with self._changed:
            if request.id in self._requests:
                problem = "a request with this id is already running"
            if problem:
                self._step.finished.append((request.id, "failed", problem))
                self._changed.notify()
                return
            running = self._requests[request.id] = _Running(request, str(next(self._numbers)))
        self._loop.call_soon_threadsafe(self._start, running)

    def abort_request(self, id: str) -> None:
        with self._changed:
            running = self._requests.pop(id, None)
            if running is None:
                return
            running.ended = True
            self._step.finished.append((id, "cancelled", ""))
            self._changed.notify()
        self._loop.call_soon_threadsafe(self._cancel, running)

    def _start(self, running: _Running) -> None:
        if not running.ended:
            running.task = self._loop.create_task(self._generate(running))

    def _cancel(self, running: _Running) -> None:
        self._release(running)
        if running.task is not None:
            # vLLM aborts a request whose generator is cancelled, before or after it was scheduled.
            running.task.cancel()

    async def _generate(self, running: _Running) -> None:
        request = running.request
        # Tagged with its type, as vLLM's own front end does; otherwise vLLM would look for text in it.
        prompt = {"type": "token", "prompt_token_ids": request.prompt, "cache_salt": str(request.cache_salt)}
        try:
            lora = self._lora_requests.get(request.adapter)
            # Closed at once when this task is cancelled, which makes vLLM abort the request.
            async with aclosing(
                self._llm.generate(prompt, self._make_params(request), running.number, lora_request=lora)
            ) as outputs:
                async for output in outputs:
                    self._accept(running, output)
                    if not output.finished:
                        await self._wait_for_pause()
        except Exception as error:  # noqa: BLE001 - the top of a task
            self._fail(running, error)

    # Output, in the loop's thread

    async def _wait_for_pause(self) -> None:
        """Wait for the end of a pause that all requests share, so that their tokens go out together."""
        if self._pause is None:
            self._pause = self._loop.create_future()
            seconds = max(PAUSE_SECONDS, PAUSE_SECONDS_PER_REQUEST * len(self._requests))
            self._loop.call_later(seconds, self._end_pause)
        # A cancelled request must not cancel the pause of the others.
        await asyncio.shield(self._pause)

    def _end_pause(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.set_result(None)

    def _accept(self, running: _Running, output: Any) -> None:
        request, completion = running.request, output.outputs[0]
        if running.ended:
            return
        new = _Output(running, list(completion.token_ids))
        if output.finished:
            new.end = _finish_reason(completion.finish_reason)
            if new.end[0] == "stop":
                del new.tokens[-1:]
        if not running.held:
            running.held = len(request.prompt)
            self._held += running.held
            self._prompt_tokens += len(request.prompt)
            self._cached_tokens += output.num_cached_tokens or 0
            if request.prompt_logprobs is not None and output.prompt_logprobs:
                new.prompt_logprobs = describe_prompt(request, output.prompt_logprobs)
        if not request.max_new_tokens:
            new.tokens, new.end = [], new.end and ("length", "")
        if request.logprobs is not None:
            new.logprobs = _describe_tokens(new.tokens, completion.logprobs, request.logprobs)
        running.held += len(new.tokens)
        self._held += len(new.tokens)
        self._tokens += len(new.tokens)
        self._add_output(new)

    def _fail(self, running: _Running, error: Exception) -> None:
        if self._llm.errored:
            with self._changed:
                self._death = f"vLLM has ended: {_describe(error)}"
                self._changed.notify()
        elif not running.ended:
            # The message may contain the request, so it goes to the client alone.
            logger.error("vLLM did not run a request: %s", type(error.__cause__ or error).__name__)
            self._add_output(_Output(running, [], end=("failed", _describe(error))))

    def _add_output(self, output: "_Output") -> None:
        """Deliver it with the output of the other requests of the same step, which are all there in the next turn of the loop."""
        if output.end is not None:
            self._release(output.running)
        if not self._turn:
            self._loop.call_soon(self._deliver)
        self._turn.append(output)

    def _release(self, running: _Running) -> None:
        self._held -= running.held
        running.held = 0

    def _deliver(self) -> None:
        turn, self._turn = self._turn, []
        self._steps += 1
        with self._changed:
            step = self._step
            for output in turn:
                running, id = output.running, output.running.request.id
                if running.ended:
                    continue
                if output.tokens:
                    step.tokens.append((id, output.tokens))
                if output.logprobs:
                    step.logprobs.append((id, output.logprobs))
                if output.prompt_logprobs:
                    step.prompt_logprobs.append((id, output.prompt_logprobs))
                if output.end is not None:
                    running.ended = True
                    del self._requests[id]
                    step.finished.append((id, *output.end))
            self._changed.notify()

    # Output, in the thread of the caller

    def next_step(self, timeout: float) -> StepOutput | None:
        with self._changed:
            self._changed.wait_for(lambda: self._death or _is_filled(self._step), timeout)
            if self._death or self._llm.errored:
                raise EngineDied(self._death or "vLLM has ended")
            if not _is_filled(self._step):
                return None
            step, self._step = self._step, StepOutput([], [])
        return step

    def report_load(self) -> Heartbeat:
        with self._changed:
            requests = list(self._requests.values())
        running = sum(1 for request in requests if request.held)
        return Heartbeat(
            steps=self._steps,
            tokens=self._tokens,
            running=running,
            waiting=len(requests) - running,
            cache_use=min(1.0, self._held / self._capacity) if self._capacity else 0.0,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
        )

    def unload(self) -> None:
        if self._llm is not None:
            self._call(self._llm.shutdown)
            self._loop.call_soon_threadsafe(self._loop.stop)


def _set_environment() -> None:
    """What vLLM reads when it is imported. Nothing is reported to its authors, and its log lines are ours."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    # A forked process can be tied to the life of this one; see the engine process.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop, on which vLLM's own server runs and which comes with it, or one of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _is_filled(step: StepOutput) -> bool:
    return bool(step.tokens or step.finished or step.prompt_logprobs)


def _finish_reason(reason: str | None) -> tuple[FinishReason, str]:
    if reason in ("stop", "length"):
        return cast(FinishReason, reason), ""
    return "failed", f"vLLM ended it as {reason}"


def _describe_tokens(tokens: list[int], positions: Any, top: int) -> list[TokenLogprobs]:
    return [describe_logprobs(token, scores, top) for token, scores in zip(tokens, positions or (), strict=False)]


def _describe(error: BaseException, lines: int = 1) -> str:
    """The first lines of an error, or of its cause where vLLM wraps it; with its class, unless it is about the request."""
    cause = error.__cause__ or error
    line = " ".join(part.strip() for part in str(cause).splitlines()[:lines])[:MAX_DETAIL]
    is_refusal = isinstance(cause, ValueError) or type(cause).__name__.endswith("ValidationError")
    return line if is_refusal and line else f"{type(cause).__name__}: {line}".rstrip(": ")
