"""Continuous batching by transformers: any causal language model, on a GPU or on the CPU.

Requests join and leave the running batch at every step. It knows nothing of text: the manager's thread generates, and
whoever calls ``next_step`` reads what it left.
"""

import gc
import itertools
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.generation.continuous_batching.continuous_api import BackgroundThreadStatus
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens
from transformers.utils.logging import disable_progress_bar

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.admission_queue import AdmissionQueue
from workers.gpu.engine.attention import register_cpu_attention, register_flash_attention
from workers.gpu.engine.attention_backend import AttentionBackend, choose_attention_backend
from workers.gpu.engine.batch_config import PAGE_TOKENS, enable_block_tables, make_batching_config
from workers.gpu.engine.batch_scheduler import INVALID_TOKEN, BatchScheduler
from workers.gpu.engine.graph_sizes import GraphSizes
from workers.gpu.engine.messages import GenerationRequest, Heartbeat, StepOutput
from workers.gpu.engine.output_buffer import BufferedOutput, OutputBuffer
from workers.gpu.engine.protocol import EngineDied, Report
from workers.gpu.engine.sampling import KEY, SamplingProcessors, encode_sampling
from workers.gpu.engine.self_test import run_self_test
from workers.gpu.engine.tensor_parallel import Answers, TensorParallelGroup, told
from workers.gpu.engine.transformers_patches import Evictions, change_step, take_over_steps
from workers.gpu.engine.warm_up import capture_graphs

log = logging.getLogger("engine.transformers")

WARM_UP_SECONDS = 600.0
WARM_UP_PROMPT = 64
# How long the generation loop may take to tell why it ends.
LAST_WORDS_SECONDS = 10.0


@dataclass
class _Request:
    """``tokens``: how many of its answer have come."""

    submit: GenerationRequest
    tokens: int = 0


class TransformersEngine:
    """Serves ``entry`` from ``folder``. Its limits are the model's context and what the cache holds for one request.

    With ``in_flight`` below the entry's ``max_in_flight``, its steps take less memory: fewer requests and fewer tokens.
    With ``ranks`` above 1 the model is spread over so many processes; the one with ``followers`` takes the requests, and the
    others call ``load`` and then ``next_step`` for ever.
    """

    def __init__(
        self, entry: ModelEntry, folder: Path, in_flight: int = 0, *, ranks: int = 1, followers: TensorParallelGroup | None = None
    ) -> None:
        self._entry = entry
        self._in_flight = in_flight or entry.max_in_flight
        self._folder = folder
        self._ranks = ranks
        self._followers = followers
        self._follows = ranks > 1 and followers is None
        self._lock = threading.Lock()
        # The manager gets numbers of our own: an id that is used again is never taken for the one cancelled before.
        self._numbers = itertools.count()
        self._requests: dict[str, _Request] = {}
        self._number_of: dict[str, str] = {}
        self._output_buffer = OutputBuffer()
        self._tokens = 0
        self._manager: Any = None
        self._feed: AdmissionQueue | None = None
        self._steps: BatchScheduler | None = None
        self._evictions: Evictions | None = None
        self._max_context = 0
        self._vocabulary = 0
        self.kernel = AttentionBackend("sdpa")

    # Start

    @property
    def attention(self) -> str:
        return self.kernel.implementation

    def load(self, report: Report) -> None:
        disable_progress_bar()  # type: ignore[no-untyped-call]
        # It has a handler of its own and tells each choice of its set-up.
        logging.getLogger("ContinuousBatchingLogger").setLevel("WARNING")
        entry = self._entry
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if entry.gpus and device == "cpu":
            raise ModelUnavailable(f"Model {entry.name} needs a GPU and its engine sees none; set gpus to 0 to try the CPU.")
        if device == "cuda" and torch.cuda.device_count() < self._ranks:
            raise ModelUnavailable(
                f"Model {entry.name} is to be spread over {self._ranks} GPUs (gpus) and its engine sees {torch.cuda.device_count()}."
            )
        report("loading", "reading the weights", 0.0)
        model: Any = AutoModelForCausalLM.from_pretrained(
            self._folder,
            dtype=entry.dtype if entry.dtype == "auto" else getattr(torch, entry.dtype),
            **self._spread(device),
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=entry.trust_remote_code,
        )
        self.serve(model, report)

    def _spread(self, device: str) -> dict[str, Any]:
        if self._ranks == 1:
            return {"device_map": device}
        return {"distributed_config": DistributedConfig(tp_plan="auto", tp_size=self._ranks)}

    def serve(self, model: Any, report: Report) -> None:
        """The second half of loading: make the batch of a model that is on its device, and warm it up."""
        device = model.device.type
        self.kernel = choose_attention_backend(model, self._entry.name)
        if self.kernel.is_flash:
            register_flash_attention(self.kernel.implementation)
            model.set_attn_implementation(self.kernel.implementation)
        if device == "cpu":
            register_cpu_attention()
        report("warming", "sizing the cache", 0.0)
        context = self._entry.max_context or int(model.config.get_text_config().max_position_embeddings)
        self._vocabulary = int(model.get_input_embeddings().weight.shape[0])
        processors = SamplingProcessors()
        shapes = self._make_batch(model, context, processors)
        start = time.monotonic()
        if self._steps is not None and device == "cuda":
            count = capture_graphs(
                self._manager, self._steps, processors, shapes, lambda what, done: report("warming", what, 0.1 + 0.8 * done)
            )
            log.info("%s: %d graphs in %.1f s", self._entry.name, count, time.monotonic() - start)
        self._manager.start()
        if not self._follows:
            self._warm_up(report)
        report("warming", "comparing a batch with single requests", 0.95)
        run_self_test(model, self._compared, vocabulary=self._vocabulary, context=self._max_context, name=self._entry.name)
        # What is there now stays. Going through it again and again would hold up the loop.
        gc.collect()
        gc.freeze()

    def _compared(self, prompts: Sequence[list[int]], tokens: int) -> Answers:
        """What is compared must be the same in all ranks, as each computes its part of the scores that it is held against."""
        if self._follows:
            return told()
        answers = self._generate(prompts, tokens)
        if self._followers is not None:
            self._followers.tell(answers)
        return answers

    def _make_batch(self, model: Any, context: int, processors: SamplingProcessors) -> GraphSizes:
        share = self._in_flight / self._entry.max_in_flight
        manager = model.init_continuous_batching(
            # Greedy after our own processors, which have added the noise that makes it a draw; stops come with each request.
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),  # type: ignore[no-untyped-call]
            continuous_batching_config=make_batching_config(
                model, self.kernel, context=context, in_flight=self._in_flight, share=share, gpu_share=self._entry.gpu_share
            ),
        )
        manager.logit_processor = processors
        manager.output_router = self._output_buffer
        enable_block_tables(manager, model, self.kernel, context)
        manager.batch_processor = manager._create_batch_processor()
        self._manager = manager
        processor = manager.batch_processor
        cache = processor.cache
        shapes = GraphSizes(cache.max_batch_tokens, processor.cb_config.max_requests_per_batch)
        change_step(processor, processors)
        self._evictions = Evictions(processor)
        if cache.max_blocks_per_request:
            self._steps = take_over_steps(processor, processors, shapes, self._output_buffer.put)
        if self._steps is None and self._ranks > 1:
            raise ModelUnavailable(
                f"Model {self._entry.name} cannot be spread over {self._ranks} GPUs: that wants FlashAttention and attention over "
                "the whole context in every layer; set gpus to 1"
            )
        allocators = cache.cache_allocators.values()
        self._feed = AdmissionQueue(
            self._in_flight,
            cache.num_sectors,
            lambda length: tuple(allocator.needs_new_blocks("", 0, length) for allocator in allocators),
            tuple(allocator.blocks_per_sector for allocator in allocators),
            PAGE_TOKENS,
        )
        self._max_context = min(context, infer_max_single_request_tokens(cache))
        if self._max_context < context:
            log.warning(
                "%s: the cache holds %d tokens for one request, less than the context of %d",
                self._entry.name,
                self._max_context,
                context,
            )
        return shapes

    def _warm_up(self, report: Report) -> None:
        """A prompt and a few tokens of each kind, so that no job waits for what is made on first use."""
        length = min(WARM_UP_PROMPT, self._max_context - 3)
        for done, temperature in enumerate((0.0, 1.0)):
            report("warming", f"a prompt of {length} tokens", 0.9 + 0.02 * done)
            self._generate([[1] * length], 3, temperature=temperature)

    def _generate(self, prompts: Sequence[list[int]], tokens: int, *, temperature: float = 0.0) -> list[list[int] | None]:
        """All at once, before there are other requests. None where there were no numbers."""
        ids = [f"warm-up {next(self._numbers)}" for _ in prompts]
        for id, prompt in zip(ids, prompts, strict=True):
            self.submit(GenerationRequest(id, prompt, tokens, [], temperature=temperature))
        answers: dict[str, list[int] | None] = {id: [] for id in ids}
        running = set(ids)
        while running:
            step = self.next_step(WARM_UP_SECONDS)
            if step is None:
                raise EngineDied(f"{len(running)} requests took longer than {WARM_UP_SECONDS:.0f} s to warm up")
            for id, new in step.tokens:
                answers[id] = [*(answers[id] or []), *new]
            for id, reason, detail in step.finished:
                running.discard(id)
                if reason == "nan_logits":
                    answers[id] = None
                elif reason != "length":
                    raise EngineDied(f"a request to warm up ended as {reason}: {detail}")
        return [answers[id] for id in ids]

    # Work

    def submit(self, request: GenerationRequest) -> None:
        fault = self._fault(request)
        with self._lock:
            if request.id in self._number_of:
                fault = "a request of this id is running already"
            if fault:
                self._output_buffer.tell((request.id, "failed", fault))
                return
            number = str(next(self._numbers))
            self._requests[number] = _Request(request)
            self._number_of[request.id] = number
            assert self._feed is not None
            length = min(len(request.prompt) + request.max_new_tokens, self._max_context)
            self._feed.add(number, request.prompt, length)
            self._admit()

    def _admit(self) -> None:
        """Give the manager what the cache has room for."""
        assert self._feed is not None
        for number in self._feed.admit():
            request = self._requests[number].submit
            self._manager.add_request(
                input_ids=request.prompt,
                request_id=number,
                max_new_tokens=min(request.max_new_tokens, self._max_context - len(request.prompt)),
                streaming=True,
                eos_token_id=request.stop_token_ids,
                **{KEY: encode_sampling(request.temperature, request.top_p, request.top_k, request.seed)},
            )

    def _fault(self, request: GenerationRequest) -> str:
        # The scheduler drops or chokes on what it can never place, so nothing of the kind may reach it.
        if not request.prompt:
            return "the prompt has no tokens"
        if not 0 <= min(request.prompt) <= max(request.prompt) < self._vocabulary:
            return f"the prompt holds tokens that the model, with {self._vocabulary} of them, does not know"
        if len(request.prompt) >= self._max_context:
            return f"the prompt has {len(request.prompt)} tokens and there is room for {self._max_context} with the answer"
        if request.max_new_tokens < 1:
            return "max_new_tokens must be at least 1"
        return ""

    def cancel(self, id: str) -> None:
        with self._lock:
            number = self._number_of.get(id)
            if number is None:
                return
            self._forget(number)
            # The manager says nothing about what it has cancelled, so the end is told from here. It hears of the cancel
            # before it hears of whatever takes the place.
            self._manager.cancel_request(number)
            self._admit()
        self._output_buffer.tell((id, "cancelled", ""))

    def next_step(self, timeout: float) -> StepOutput | None:
        gathered = self._output_buffer.take(timeout)
        if gathered is None:
            self._check_alive()
            return None
        if gathered.fault is not None:
            self._check_alive(gathered.fault)
        spoilt: list[str] = []
        with self._lock:
            step = self._step_of(gathered, spoilt)
            self._admit()
        if spoilt:
            self._free_spoilt(spoilt)
        self._tokens += sum(len(ids) for _, ids in step.tokens)
        return step if step.tokens or step.finished else None

    def _step_of(self, gathered: BufferedOutput, spoilt: list[str]) -> StepOutput:
        """What the gathered tokens and ends of numbers are for the ids that were asked for."""
        step = StepOutput([], [])
        assert self._feed is not None
        for number, tokens in gathered.tokens.items():
            request = self._requests.get(number)
            if request is None:
                continue  # cancelled meanwhile
            if not request.tokens:
                self._feed.began(number)
            if self._steps is None and self._ends_early(number, request, tokens, step, spoilt):
                continue
            request.tokens += len(tokens)
            step.tokens.append((request.submit.id, tokens))
        for number, reason, detail in gathered.ends:
            request = self._requests.get(number)
            if request is not None:
                step.finished.append((request.submit.id, reason, detail))
                self._forget(number)
        step.finished.extend(gathered.told)
        return step

    def _ends_early(self, number: str, request: _Request, tokens: list[int], step: StepOutput, spoilt: list[str]) -> bool:
        """The manager's own steps know nothing of undefined tokens, and count a stop token as one of the answer."""
        if INVALID_TOKEN in tokens:
            at = len(request.submit.prompt) + request.tokens + tokens.index(INVALID_TOKEN)
            step.finished.append((request.submit.id, "nan_logits", f"NaN or infinity among the scores after {at} tokens"))
            self._forget(number)
            spoilt.append(number)
            return True
        if tokens[-1] in request.submit.stop_token_ids:
            if len(tokens) > 1:
                step.tokens.append((request.submit.id, tokens[:-1]))
            step.finished.append((request.submit.id, "stop", ""))
            self._forget(number)
            return True
        return False

    def _forget(self, number: str) -> None:
        assert self._feed is not None
        del self._number_of[self._requests.pop(number).submit.id]
        self._feed.ended(number)

    def _free_spoilt(self, numbers: list[str]) -> None:
        """End requests whose pages may hold NaN, and keep none of these pages for prompts that begin alike."""
        batch_processor = self._manager.batch_processor
        try:
            with self._manager.pause():
                for number in numbers:
                    batch_processor.cache.free_blocks(number, no_cache=True)
                    batch_processor.scheduler.set_request_cancellation(number)
                # Those of a request that had ended by then.
                batch_processor.cache.evict_cached_blocks()
        except RuntimeError:
            self._check_alive()

    def _check_alive(self, error: str | None = None) -> None:
        """A fault of one request ends that request; one of the batch stops the manager, and then this process must end."""
        status = self._manager.background_thread_status
        if status.local_status >= BackgroundThreadStatus.HARD_STOP or not self._manager.is_running():
            # It fails its requests first, and only then tells the error itself.
            self._manager._generation_thread.join(LAST_WORDS_SECONDS)
            cause = status.fatal_error
            # CUDA's errors go on with lines of advice to programmers.
            reason = (str(cause or error or "no reason given") or repr(cause)).splitlines()[0]
            raise EngineDied(f"the generation loop has died: {reason}") from cause

    def stats(self) -> Heartbeat:
        assert self._feed is not None
        held, waiting = len(self._requests), len(self._feed)
        return Heartbeat(
            steps=self._manager.current_batch,
            tokens=self._tokens,
            running=max(held - waiting, 0),
            waiting=waiting,
            cache_use=round(1.0 - self._manager.batch_processor.cache.compute_free_capacity(), 4),
            evictions=self._evictions.count if self._evictions is not None else 0,
        )

    def close(self) -> None:
        if self._manager is not None:
            self._manager.stop(block=True, timeout=5.0, hard_stop=True)
