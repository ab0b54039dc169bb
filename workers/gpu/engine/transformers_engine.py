"""Transformers engine: continuous batching of any causal language model, on a GPU or on the CPU.

Models and weights are those of transformers; scheduling, cache and attention are the engine core's. ``next_step`` reads its output.
"""

import gc
import itertools
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llguidance import LLTokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils.logging import disable_progress_bar

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.adjustments import LogitAdjuster, needs_adjuster
from workers.gpu.engine.attention_backend import AttentionBackend, choose_attention_backend
from workers.gpu.engine.build_core import CoreParts, build_core
from workers.gpu.engine.cpu_speed import use_fast_head, use_fast_precision
from workers.gpu.engine.engine_core import EngineCore
from workers.gpu.engine.grammars import GrammarCompiler, GrammarError, GrammarMatcher, make_grammar_tokenizer
from workers.gpu.engine.messages import FinishReason, GenerationRequest, Heartbeat, StepOutput
from workers.gpu.engine.output_buffer import BufferedOutput, OutputBuffer
from workers.gpu.engine.protocol import EngineDied, PhaseCallback
from workers.gpu.engine.request_checks import find_problem
from workers.gpu.engine.sampling import GREEDY, encode_sampling
from workers.gpu.engine.scheduler import NO_LOGPROBS, QueuedRequest
from workers.gpu.engine.self_test import run_self_test
from workers.gpu.engine.tensor_parallel import GeneratedTokens, RankZeroRunner, TensorParallelGroup, follow_steps

logger = logging.getLogger("engine")

WARM_UP_SECONDS = 600.0
WARM_UP_PROMPT = 64
WARM_UPS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 1.0, "min_p": 0.1, "repetition_penalty": 1.1, "logprobs": 1},
)
COMPILE_THREADS = 2


class TransformersEngine:
    """Serves ``entry`` from ``folder``.

    With ``in_flight`` below the entry's ``max_in_flight``, steps take less memory: fewer requests and fewer tokens. With
    ``ranks`` above 1 the model is spread over that many processes: the one with ``group`` is rank 0 and accepts requests;
    the others call ``load`` and then ``next_step`` forever.
    """

    def __init__(
        self, entry: ModelEntry, folder: Path, in_flight: int = 0, *, ranks: int = 1, group: TensorParallelGroup | None = None
    ) -> None:
        self._entry = entry
        self._in_flight = in_flight or entry.max_in_flight
        self._folder = folder
        self._ranks = ranks
        self._group = group
        self._is_follower = ranks > 1 and group is None
        self._lock = threading.Lock()
        # Internal ids, so that an id that is used again is never confused with the request cancelled before.
        self._numbers = itertools.count()
        self._requests: dict[str, GenerationRequest] = {}
        self._number_of: dict[str, str] = {}
        self._buffer = OutputBuffer()
        self._tokens = 0
        self._vocabulary_size = 0
        self._grammars: GrammarCompiler
        # Grammars take up to a second, in which other requests begin and running ones go on.
        self._compiling = ThreadPoolExecutor(COMPILE_THREADS, thread_name_prefix="grammar")
        self._attention = AttentionBackend("sdpa")
        self.model: Any = None
        self.parts: CoreParts
        self.core: EngineCore

    # Start

    @property
    def attention_backend(self) -> str:
        return self._attention.name

    @property
    def max_context(self) -> int:
        return self.parts.max_context

    def load(self, report: PhaseCallback) -> None:
        disable_progress_bar()
        entry = self._entry
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if entry.gpus and device == "cpu":
            raise ModelUnavailable(
                f"Model {entry.name} needs a GPU and its engine sees none. Set gpus to 0 to run it on the CPU."
            )
        if device == "cuda" and torch.cuda.device_count() < self._ranks:
            raise ModelUnavailable(
                f"Model {entry.name} needs {self._ranks} GPUs (gpus) and its engine sees {torch.cuda.device_count()}."
            )
        report("loading", "reading the weights", 0.0)
        placement: dict[str, Any] = {"device_map": device}
        if self._ranks > 1:
            placement = {"distributed_config": DistributedConfig(tp_plan="auto", tp_size=self._ranks)}
        model: Any = AutoModelForCausalLM.from_pretrained(
            self._folder,
            dtype=entry.dtype if entry.dtype == "auto" else getattr(torch, entry.dtype),
            **placement,
            # The engine registers its own, and the self-test compares it with this one, which every model has.
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=entry.trust_remote_code,
        )
        if device == "cpu":
            if entry.dtype == "auto":
                use_fast_precision(model, entry.name)
            use_fast_head(model)
        self._start_serving(model, report)

    def _start_serving(self, model: Any, report: PhaseCallback) -> None:
        self.model = model
        self._attention = choose_attention_backend(model, self._entry.name)
        report("warming", "sizing the KV cache", 0.0)
        self._vocabulary_size = int(model.get_input_embeddings().weight.shape[0])
        self._grammars = GrammarCompiler(self._make_grammar_tokenizer)
        self.parts = parts = build_core(
            model,
            self._entry,
            self._attention,
            self._in_flight,
            self._buffer,
            lambda what, done: report("warming", what, 0.1 + 0.8 * done),
        )
        if not self._is_follower:
            runner = RankZeroRunner(parts.runner, self._group) if self._group is not None else parts.runner
            self.core = EngineCore(parts.scheduler, runner, self._buffer, parts.depth)
            self.core.start()
            self._warm_up(report)
        report("warming", "running the self-test", 0.95)
        run_self_test(
            model,
            self._generate_on_all_ranks,
            vocabulary_size=self._vocabulary_size,
            context=parts.max_context,
            name=self._entry.name,
        )
        # Long-lived objects stay out of garbage collection, whose pauses would hold up the loop.
        gc.collect()
        gc.freeze()

    def _generate_on_all_ranks(self, prompts: Sequence[list[int]], tokens: int) -> GeneratedTokens:
        """Generate on rank 0 and share the tokens: each rank computes its part of the scores that they are compared with."""
        if self._is_follower:
            return follow_steps(self.parts.runner)
        generated = self._generate(prompts, tokens)
        if self._group is not None:
            self._group.send_tokens(generated)
        return generated

    def _make_grammar_tokenizer(self) -> LLTokenizer:
        tokenizer: Any = AutoTokenizer.from_pretrained(self._folder, trust_remote_code=self._entry.trust_remote_code)
        if not tokenizer.is_fast:
            raise ValueError("it has no fast version")
        return make_grammar_tokenizer(tokenizer.backend_tokenizer, self._vocabulary_size)

    def _warm_up(self, report: PhaseCallback) -> None:
        """Generate a few tokens, greedy, sampled and adjusted, so that no job waits for what is created on first use."""
        length = min(WARM_UP_PROMPT, self.parts.max_context - 3)
        for done, options in enumerate(WARM_UPS):
            report("warming", f"generating from a prompt of {length} tokens", 0.9 + 0.02 * done)
            self._generate([[1] * length], 3, **options)

    def _generate(self, prompts: Sequence[list[int]], tokens: int, **options: Any) -> list[list[int] | None]:
        """Generate for all prompts at once, before there are other requests. None for NaN or infinite logits."""
        ids = [f"warm-up {next(self._numbers)}" for _ in prompts]
        for id, prompt in zip(ids, prompts, strict=True):
            self.add_request(GenerationRequest(id, prompt, tokens, [], **options))
        outputs: dict[str, list[int] | None] = {id: [] for id in ids}
        running = set(ids)
        while running:
            step = self.next_step(WARM_UP_SECONDS)
            if step is None:
                raise EngineDied(f"{len(running)} warm-up requests took longer than {WARM_UP_SECONDS:.0f} s")
            for id, new in step.tokens:
                outputs[id] = [*(outputs[id] or []), *new]
            for id, reason, detail in step.finished:
                running.discard(id)
                if reason == "nan_logits":
                    outputs[id] = None
                elif reason != "length":
                    raise EngineDied(f"a warm-up request finished as {reason}: {detail}")
        return [outputs[id] for id in ids]

    # Requests

    def add_request(self, request: GenerationRequest) -> None:
        problem = find_problem(request, vocabulary_size=self._vocabulary_size, max_context=self.parts.max_context)
        with self._lock:
            if request.id in self._number_of:
                problem = "a request with this id is already running"
            if problem:
                self._buffer.append_rejected((request.id, "failed", problem))
                return
            number = str(next(self._numbers))
            self._requests[number] = request
            self._number_of[request.id] = number
        if request.grammar:
            self._compiling.submit(self._compile, number, request)
        else:
            self._queue(number, request, None)

    def _compile(self, number: str, request: GenerationRequest) -> None:
        """Queue a request when its grammar is compiled, or end it if it cannot be."""
        try:
            generated = request.prompt[len(request.prompt) - request.generated_tokens :]
            stops = [] if request.ignore_stop_tokens else request.stop_token_ids
            matcher = self._grammars.compile(request.grammar, stops, generated)
        except GrammarError as error:
            self._reject(number, "failed", str(error))
        except Exception as error:  # noqa: BLE001 - the top of a thread; its message may contain the grammar, so it is not logged
            logger.error("the grammar of a request could not be compiled: %s", type(error).__name__)
            self._reject(number, "failed", f"the grammar could not be compiled: {type(error).__name__}")
        else:
            if matcher.is_complete:
                self._reject(number, "stop", "")
            else:
                self._queue(number, request, matcher)

    def _reject(self, number: str, reason: FinishReason, detail: str) -> None:
        """End a request that the core has not been given, unless it has been cancelled."""
        with self._lock:
            request = self._requests.pop(number, None)
            if request is None:
                return
            del self._number_of[request.id]
        self._buffer.append_rejected((request.id, reason, detail))

    def _queue(self, number: str, request: GenerationRequest, matcher: GrammarMatcher | None) -> None:
        prompt = np.array(request.prompt, np.int32)
        sampling = encode_sampling(request.temperature, request.top_p, request.top_k, request.seed)
        adjuster = LogitAdjuster(request, sampling, matcher) if needs_adjuster(request) else None
        scored_until = len(prompt) - request.generated_tokens if request.prompt_logprobs is not None else 0
        scored_from = 1 + request.scored_tokens
        # Tokens before the first one that is scored may be in the cache; of the whole prompt all but the last.
        cached = scored_from - 1 if scored_from < scored_until else len(prompt) - 1
        queued = QueuedRequest(
            id=number,
            prompt=prompt,
            max_new_tokens=min(request.max_new_tokens, self.parts.max_context - len(prompt)),
            stop_token_ids=frozenset(() if request.ignore_stop_tokens else request.stop_token_ids),
            # A step samples without adjustments at first.
            sampling=sampling if adjuster is None else GREEDY,
            cache_salt=request.cache_salt,
            # Shared pages were computed in other steps.
            digests=[]
            if request.deterministic
            else self.parts.scheduler.cache.digests(request.prompt[:cached], request.cache_salt),
            deterministic=request.deterministic,
            logprobs=NO_LOGPROBS if request.logprobs is None else request.logprobs,
            prompt_top=request.prompt_logprobs or 0,
            scored_from=scored_from,
            scored_until=scored_until,
            adjuster=adjuster,
        )
        # Under the lock, so that a cancel comes after it or prevents it.
        with self._lock:
            if number in self._requests:
                self.core.add_request(queued)

    def abort_request(self, id: str) -> None:
        with self._lock:
            number = self._number_of.pop(id, None)
            if number is None:
                return
            del self._requests[number]
        # The core does not report the end of a cancelled request, so it is reported here.
        self.core.abort_request(number)
        self._buffer.append_rejected((id, "cancelled", ""))

    # Output

    def next_step(self, timeout: float) -> StepOutput | None:
        if self._is_follower:
            follow_steps(self.parts.runner)
        output = self._buffer.wait_for_output(timeout)
        if output is None:
            self.core.check_alive()
            return None
        if output.error is not None:
            self.core.check_alive()
        with self._lock:
            step = self._collect(output)
        self._tokens += sum(len(ids) for _, ids in step.tokens)
        return step if step.tokens or step.finished or step.prompt_logprobs else None

    def _collect(self, output: BufferedOutput) -> StepOutput:
        """Map buffered output to the ids of the sender, without that of requests that were cancelled meanwhile."""
        step = StepOutput([], [])
        for number, tokens in output.tokens.items():
            request = self._requests.get(number)
            if request is not None:
                step.tokens.append((request.id, tokens))
        for scores, collected in ((output.logprobs, step.logprobs), (output.prompt_logprobs, step.prompt_logprobs)):
            for number, entries in scores.items():
                request = self._requests.get(number)
                if request is not None:
                    collected.append((request.id, entries))
        for number, reason, detail in output.finished:
            request, cached = self._requests.pop(number, None), self.parts.scheduler.cached_of_finished.pop(number, 0)
            if request is not None:
                del self._number_of[request.id]
                step.finished.append((request.id, reason, detail))
                if cached:
                    step.cached_tokens.append((request.id, cached))
        step.finished.extend(output.rejected)
        return step

    def report_load(self) -> Heartbeat:
        scheduler = self.parts.scheduler
        held, waiting = len(self._requests), scheduler.waiting
        return Heartbeat(
            steps=self.core.steps,
            tokens=self._tokens,
            running=max(held - waiting, 0),
            waiting=waiting,
            cache_use=round(scheduler.cache.used_fraction, 4),
            prompt_tokens=scheduler.prompt_tokens,
            cached_tokens=scheduler.cached_tokens,
        )

    def unload(self) -> None:
        self._compiling.shutdown(wait=False, cancel_futures=True)
        if hasattr(self, "core"):
            self.core.stop(timeout=5.0)
