"""Transformers engine: continuous batching of any causal language model, on a GPU or on the CPU.

Models and weights are those of transformers; scheduling, cache and attention are the engine core's. ``next_step`` reads its output.
"""

import gc
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils.logging import disable_progress_bar

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.attention_backend import AttentionBackend, choose_attention_backend
from workers.gpu.engine.build_core import CoreParts, build_core
from workers.gpu.engine.engine_core import EngineCore
from workers.gpu.engine.messages import GenerationRequest, Heartbeat, StepOutput
from workers.gpu.engine.output_buffer import BufferedOutput, OutputBuffer
from workers.gpu.engine.protocol import EngineDied, PhaseCallback
from workers.gpu.engine.sampling import encode_sampling
from workers.gpu.engine.scheduler import QueuedRequest
from workers.gpu.engine.self_test import run_self_test
from workers.gpu.engine.tensor_parallel import GeneratedTokens, RankZeroRunner, TensorParallelGroup, follow_steps

WARM_UP_SECONDS = 600.0
WARM_UP_PROMPT = 64


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
        self._attention = AttentionBackend("sdpa")
        self.model: Any = None
        self.parts: CoreParts
        self.core: EngineCore

    # Start

    @property
    def attention_backend(self) -> str:
        return self._attention.name

    def load(self, report: PhaseCallback) -> None:
        disable_progress_bar()  # type: ignore[no-untyped-call]
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
        self._start_serving(model, report)

    def _start_serving(self, model: Any, report: PhaseCallback) -> None:
        self.model = model
        self._attention = choose_attention_backend(model, self._entry.name)
        report("warming", "sizing the KV cache", 0.0)
        self._vocabulary_size = int(model.get_input_embeddings().weight.shape[0])
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

    def _warm_up(self, report: PhaseCallback) -> None:
        """Generate a few tokens, greedy and sampled, so that no job waits for what is created on first use."""
        length = min(WARM_UP_PROMPT, self.parts.max_context - 3)
        for done, temperature in enumerate((0.0, 1.0)):
            report("warming", f"generating from a prompt of {length} tokens", 0.9 + 0.02 * done)
            self._generate([[1] * length], 3, temperature=temperature)

    def _generate(self, prompts: Sequence[list[int]], tokens: int, *, temperature: float = 0.0) -> list[list[int] | None]:
        """Generate for all prompts at once, before there are other requests. None for NaN or infinite logits."""
        ids = [f"warm-up {next(self._numbers)}" for _ in prompts]
        for id, prompt in zip(ids, prompts, strict=True):
            self.add_request(GenerationRequest(id, prompt, tokens, [], temperature=temperature))
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
        problem = self._problem(request)
        with self._lock:
            if request.id in self._number_of:
                problem = "a request with this id is already running"
            if problem:
                self._buffer.append_rejected((request.id, "failed", problem))
                return
            number = str(next(self._numbers))
            self._requests[number] = request
            self._number_of[request.id] = number
        cache = self.parts.scheduler.cache
        # The last token of the prompt has to be computed in any case.
        digests = cache.digests(request.prompt[:-1], request.cache_salt)
        self.core.add_request(
            QueuedRequest(
                id=number,
                prompt=np.array(request.prompt, np.int32),
                max_new_tokens=min(request.max_new_tokens, self.parts.max_context - len(request.prompt)),
                stop_token_ids=frozenset(request.stop_token_ids),
                sampling=encode_sampling(request.temperature, request.top_p, request.top_k, request.seed),
                cache_salt=request.cache_salt,
                digests=digests,
            )
        )

    def abort_request(self, id: str) -> None:
        with self._lock:
            number = self._number_of.pop(id, None)
            if number is None:
                return
            del self._requests[number]
        # The core does not report the end of a cancelled request, so it is reported here.
        self.core.abort_request(number)
        self._buffer.append_rejected((id, "cancelled", ""))

    def _problem(self, request: GenerationRequest) -> str:
        if not request.prompt:
            return "the prompt has no tokens"
        if not 0 <= min(request.prompt) <= max(request.prompt) < self._vocabulary_size:
            return f"the prompt contains token ids outside the model's vocabulary of {self._vocabulary_size}"
        if len(request.prompt) >= self.parts.max_context:
            return (
                f"the prompt has {len(request.prompt)} tokens, and prompt and output together may have {self.parts.max_context}"
            )
        if request.max_new_tokens < 1:
            return "max_new_tokens must be at least 1"
        return ""

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
        return step if step.tokens or step.finished else None

    def _collect(self, output: BufferedOutput) -> StepOutput:
        """Map buffered output to the ids of the sender, without that of requests that were cancelled meanwhile."""
        step = StepOutput([], [])
        for number, tokens in output.tokens.items():
            request = self._requests.get(number)
            if request is not None:
                step.tokens.append((request.id, tokens))
        for number, reason, detail in output.finished:
            request = self._requests.pop(number, None)
            if request is not None:
                del self._number_of[request.id]
                step.finished.append((request.id, reason, detail))
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
        if hasattr(self, "core"):
            self.core.stop(timeout=5.0)
