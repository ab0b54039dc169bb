"""Continuous batching by transformers: any causal language model, on a GPU or on the CPU.

Requests join and leave the running batch at every step. It knows nothing of text: the manager's thread generates, and
whoever calls ``next_step`` reads what it left.
"""

import itertools
import logging
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.continuous_api import BackgroundThreadStatus, OutputRouter
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available
from transformers.utils.logging import disable_progress_bar

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.attention import isolate_requests
from workers.gpu.engine.protocol import EngineDied, Report
from workers.gpu.engine.sampling import DRAWN, GREEDY, KEY, SamplingProcessors, sampling_of
from workers.gpu.engine.step import UNDEFINED, change_step
from workers.gpu.messages import Beat, Reason, Step, Submit

log = logging.getLogger("engine.transformers")

PAGE_TOKENS = 256

# On the CPU the cache is sized by what is promised, as free memory is shared with everything else on the machine.
CPU_BATCH_TOKENS, CPU_FEWEST_BATCH_TOKENS = 512, 64
CPU_TOKENS_PER_REQUEST = 1024

# What the manager takes by itself for tokens of one step, and how much of the free memory an engine gets that has run out.
GPU_BATCH_TOKENS = 8192
CAREFUL_MEMORY_SHARE = 0.8

# Few and large steps of padding: few CUDA graphs, so that almost all of them exist before the first job.
Q_PADDING, KV_PADDING = 512, 65536
WARM_UP_SECONDS = 600.0
# How long the generation loop may take to tell why it ends.
LAST_WORDS_SECONDS = 10.0


class StepRouter(OutputRouter):
    """Hands over what one step gave as one item, where the manager's own would hand over each request's by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: queue.SimpleQueue[list[GenerationOutput]] = queue.SimpleQueue()

    def deliver(self, output: GenerationOutput) -> None:
        self.steps.put([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        self.steps.put(outputs)


@dataclass
class _Request:
    id: str
    stops: frozenset[int]
    sent: int = 0


class TransformersEngine:
    """Serves ``entry`` from ``folder``. Its limits are the model's context and what the cache holds for one request.

    With ``in_flight`` below the entry's ``max_in_flight``, its steps take less memory: fewer requests and fewer tokens.
    """

    def __init__(self, entry: ModelEntry, folder: Path, in_flight: int = 0) -> None:
        self._entry = entry
        self._in_flight = in_flight or entry.max_in_flight
        self._folder = folder
        self._lock = threading.Lock()
        # The manager gets numbers of our own: an id that is used again is never taken for the one cancelled before.
        self._numbers = itertools.count()
        self._requests: dict[str, _Request] = {}
        self._number_of: dict[str, str] = {}
        self._router = StepRouter()
        self._ended: list[tuple[str, Reason, str]] = []
        self._spoilt: list[str] = []
        self._tokens = 0
        self._manager: Any = None
        self._max_context = 0
        self._vocabulary = 0

    # Start

    def load(self, report: Report) -> None:
        disable_progress_bar()  # type: ignore[no-untyped-call]
        # It has a handler of its own and tells each choice of its set-up.
        logging.getLogger("ContinuousBatchingLogger").setLevel("WARNING")
        entry = self._entry
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if entry.gpus and device == "cpu":
            raise ModelUnavailable(f"Model {entry.name} needs a GPU and its engine sees none; set gpus to 0 to try the CPU.")
        report("loading", "reading the weights", 0.0)
        model: Any = AutoModelForCausalLM.from_pretrained(
            self._folder,
            dtype=entry.dtype if entry.dtype == "auto" else getattr(torch, entry.dtype),
            device_map=device,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=entry.trust_remote_code,
        )
        if device == "cpu":
            isolate_requests()
        report("warming", "sizing the cache", 0.0)
        context = entry.max_context or int(model.config.get_text_config().max_position_embeddings)
        embeddings: Any = model.get_input_embeddings()
        self._vocabulary = int(embeddings.weight.shape[0])
        self._manager = model.init_continuous_batching(
            # Greedy after our own processors, which have added the noise that makes it a draw; stops come with each request.
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),  # type: ignore[no-untyped-call]
            continuous_batching_config=self._batching(model, device, context),
        )
        processors = SamplingProcessors()
        self._manager.logit_processor = processors
        self._manager.output_router = self._router
        self._manager.batch_processor = self._manager._create_batch_processor()
        change_step(self._manager.batch_processor, processors)
        report("warming", "preparing kernels", 0.1)
        for sampling in (DRAWN, GREEDY):
            processors.unasked = sampling
            self._manager.warmup()
        self._manager.start()
        cache = self._manager.batch_processor.cache
        self._max_context = min(context, infer_max_single_request_tokens(cache))
        if self._max_context < context:
            log.warning(
                "%s: the cache holds %d tokens for one request, less than the context of %d",
                entry.name,
                self._max_context,
                context,
            )
        self._warm_up(report, cache.max_batch_tokens if device == "cuda" else 64)

    def _batching(self, model: Any, device: str, context: int) -> ContinuousBatchingConfig:
        in_flight, share = self._in_flight, self._in_flight / self._entry.max_in_flight
        shared: dict[str, Any] = {
            "page_size": PAGE_TOKENS,
            "max_requests_per_batch": in_flight,
            "scheduler_type": "prefill_first",
        }
        if device == "cpu":
            tokens = max(context, in_flight * min(context, CPU_TOKENS_PER_REQUEST))
            # One page more for each request, as its last page is seldom full.
            blocks = -(-tokens // PAGE_TOKENS) + in_flight
            batch = max(int(CPU_BATCH_TOKENS * share), CPU_FEWEST_BATCH_TOKENS, in_flight)
            return ContinuousBatchingConfig(max_batch_tokens=batch, num_blocks=blocks, **shared)
        if share < 1:
            shared["max_batch_tokens"] = max(int(GPU_BATCH_TOKENS * share), Q_PADDING)
            shared["max_memory_percent"] = CAREFUL_MEMORY_SHARE
        if model._supports_flash_attn and (
            is_flash_attn_3_available(kernels_fallback_ok=True) or is_flash_attn_2_available(kernels_fallback_ok=True)
        ):
            return ContinuousBatchingConfig(
                default_compile_level=1, q_padding_interval_size=Q_PADDING, kv_padding_interval_size=KV_PADDING, **shared
            )
        log.warning(
            "%s: no FlashAttention here, so attention is far slower, and a NaN in one request spoils those of its step; "
            "install flash-attn-3 or flash-attn",
            self._entry.name,
        )
        return ContinuousBatchingConfig(**shared)

    def _warm_up(self, report: Report, longest: int) -> None:
        """Run prompts of every padded length, so that no job waits for a kernel or a graph that is made on first use."""
        longest = min(longest, self._max_context - 2)
        lengths = [*range(Q_PADDING, longest, Q_PADDING), longest]
        # Twice: with asynchronous batching two sets of buffers take turns, and each has graphs of its own. And once more for
        # the graphs of steps that draw.
        kinds = [(length, temperature) for length in lengths for temperature in (0.0, 1.0) for _ in range(2)]
        for done, (length, temperature) in enumerate(kinds):
            report("warming", f"a prompt of {length} tokens", 0.1 + 0.9 * done / len(kinds))
            id = f"warm-up {done}"
            self.submit(Submit(id, [1] * length, 2, [], temperature=temperature))
            while True:
                step = self.next_step(WARM_UP_SECONDS)
                if step is None:
                    raise EngineDied(f"a prompt of {length} tokens took longer than {WARM_UP_SECONDS:.0f} s to warm up")
                if step.finished:
                    _, reason, detail = step.finished[0]
                    if reason != "length":
                        raise EngineDied(f"warming up ended with {reason}: {detail}")
                    break
        self._tokens = 0

    # Work

    def submit(self, request: Submit) -> None:
        fault = self._fault(request)
        with self._lock:
            if request.id in self._number_of:
                fault = "a request of this id is running already"
            if fault:
                self._ended.append((request.id, "failed", fault))
                self._router.steps.put([])
                return
            number = str(next(self._numbers))
            self._requests[number] = _Request(request.id, frozenset(request.stop_token_ids))
            self._number_of[request.id] = number
        self._manager.add_request(
            input_ids=request.prompt,
            request_id=number,
            max_new_tokens=min(request.max_new_tokens, self._max_context - len(request.prompt)),
            streaming=True,
            eos_token_id=request.stop_token_ids,
            **{KEY: sampling_of(request.temperature, request.top_p, request.top_k, request.seed)},
        )

    def _fault(self, request: Submit) -> str:
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
            number = self._number_of.pop(id, None)
            if number is None:
                return
            del self._requests[number]
            self._ended.append((id, "cancelled", ""))
        # The manager says nothing about what it has cancelled, so the end is told from here.
        self._manager.cancel_request(number)
        self._router.steps.put([])

    def next_step(self, timeout: float) -> Step | None:
        try:
            outputs = self._router.steps.get(timeout=timeout)
        except queue.Empty:
            self._check_alive()
            return None
        try:
            # Steps that have come meanwhile go along: a slow reader gets fewer and larger messages.
            while True:
                outputs = outputs + self._router.steps.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            step = Step([], self._ended)
            self._ended = []
            for output in outputs:
                self._add(output, step)
            spoilt, self._spoilt = self._spoilt, []
        if spoilt:
            self._forget(spoilt)
        self._tokens += sum(len(ids) for _, ids in step.tokens)
        return step if step.tokens or step.finished else None

    def _add(self, output: GenerationOutput, step: Step) -> None:
        request = self._requests.get(output.request_id)
        if request is None:
            return  # cancelled meanwhile
        if output.status == RequestStatus.FAILED:
            self._check_alive(output.error)
        tokens = output.generated_tokens[request.sent :]
        if UNDEFINED in tokens:
            self._end_undefined(request, output, step)
            return
        request.sent += len(tokens)
        stopped = bool(tokens) and tokens[-1] in request.stops
        if stopped:
            tokens = tokens[:-1]
        if tokens:
            step.tokens.append((request.id, tokens))
        if output.is_finished():
            failed = output.status == RequestStatus.FAILED
            step.finished.append((request.id, "failed" if failed else "stop" if stopped else "length", output.error or ""))
            del self._requests[output.request_id]
            del self._number_of[request.id]

    def _end_undefined(self, request: _Request, output: GenerationOutput, step: Step) -> None:
        at = len(output.prompt_ids) + output.generated_tokens.index(UNDEFINED)
        step.finished.append((request.id, "nan_logits", f"NaN or infinity among the scores after {at} tokens"))
        del self._requests[output.request_id]
        del self._number_of[request.id]
        self._spoilt.append(output.request_id)

    def _forget(self, numbers: list[str]) -> None:
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

    def stats(self) -> Beat:
        scheduler, cache = self._manager.batch_processor.scheduler, self._manager.batch_processor.cache
        held = len(self._requests)
        running = len(scheduler.active_requests)
        return Beat(
            steps=self._manager.current_batch,
            tokens=self._tokens,
            running=min(running, held),
            waiting=max(held - running, 0),
            cache_use=round(1.0 - cache.compute_free_capacity(), 4),
        )

    def close(self) -> None:
        if self._manager is not None:
            self._manager.stop(block=True, timeout=5.0, hard_stop=True)
