"""Continuous batch: the batching manager of transformers, set up for one model with our steps, sampling and output."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from transformers import GenerationConfig

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.admission_queue import AdmissionQueue
from workers.gpu.engine.attention import FlashAttention, register_cpu_attention
from workers.gpu.engine.attention_backend import AttentionBackend
from workers.gpu.engine.batch_config import PAGE_TOKENS, enable_block_tables, make_batching_config
from workers.gpu.engine.batch_scheduler import BatchScheduler
from workers.gpu.engine.graph_sizes import GraphSizes
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine.output_buffer import OutputBuffer
from workers.gpu.engine.protocol import EngineDied
from workers.gpu.engine.sampling import encode_sampling
from workers.gpu.engine.transformers_patches import (
    SALT_KEY,
    SAMPLING_KEY,
    BatchingBackend,
    EvictionCounter,
    SamplingProcessors,
    allow_compiled_layers,
    create_batch_processor,
    free_poisoned_requests,
    loop_error,
    max_single_request_tokens,
)
from workers.gpu.engine.warm_up import capture_graphs

logger = logging.getLogger("engine.transformers")

# How long the generation loop may take to report why it ends.
LOOP_EXIT_SECONDS = 10.0


class ContinuousBatch:
    """The batch of ``model`` for up to ``in_flight`` requests; its output goes to ``buffer``. Does not run before ``start_loop``.

    Request ids are numbers as strings: ranks sort by them.
    """

    def __init__(
        self, model: Any, entry: ModelEntry, attention: AttentionBackend, in_flight: int, ranks: int, buffer: OutputBuffer
    ) -> None:
        self.model = model
        self._name = entry.name
        self._in_flight = in_flight
        flash = FlashAttention(attention.name) if attention.is_flash else None
        if flash is not None:
            allow_compiled_layers()
            flash.register_implementation(attention.name)
            model.set_attn_implementation(attention.name)
        if model.device.type == "cpu":
            register_cpu_attention()
        context = entry.max_context or int(model.config.get_text_config().max_position_embeddings)
        self.manager: Any = model.init_continuous_batching(
            # Greedy decoding of scores that include the sampling noise; stop tokens come with each request.
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),  # type: ignore[no-untyped-call]
            continuous_batching_config=make_batching_config(
                model,
                attention,
                context=context,
                in_flight=in_flight,
                share=in_flight / entry.max_in_flight,
                gpu_share=entry.gpu_share,
            ),
        )
        enable_block_tables(self.manager, model, attention, context)
        processors = SamplingProcessors()
        self._processor = create_batch_processor(self.manager, processors, buffer)
        self._evictions = EvictionCounter(self._processor)
        self._cache = self._processor.cache
        if flash is not None:
            flash.use_cache(self._cache)
        self._sizes = GraphSizes(self._cache.max_batch_tokens, self._processor.cb_config.max_requests_per_batch)
        self.scheduler: BatchScheduler | None = None
        if self._cache.max_blocks_per_request:
            self._backend = BatchingBackend(self._processor, processors)
            self.scheduler = BatchScheduler(self._backend, self._sizes, buffer.append_step)
            self._backend.install(self.scheduler.prepare_step, self.scheduler.process_output)
        if self.scheduler is None and ranks > 1:
            raise ModelUnavailable(
                f"Model {self._name} cannot be spread over {ranks} GPUs: that needs FlashAttention and full attention in every "
                "layer. Set gpus to 1."
            )
        self.max_context = min(context, max_single_request_tokens(self._cache))
        if self.max_context < context:
            logger.warning(
                "%s: the KV cache holds %d tokens of one request, less than the context of %d",
                self._name,
                self.max_context,
                context,
            )

    def make_admission_queue(self) -> AdmissionQueue:
        """An admission queue for this cache."""
        allocators = self._cache.cache_allocators.values()
        return AdmissionQueue(
            self._in_flight,
            self._cache.num_sectors,
            lambda length: tuple(allocator.needs_new_blocks("", 0, length) for allocator in allocators),
            tuple(allocator.blocks_per_sector for allocator in allocators),
            PAGE_TOKENS,
        )

    def capture_graphs(self, report: Callable[[str, float], None]) -> None:
        """Capture the CUDA graphs of all step sizes; does nothing on the CPU."""
        if self.scheduler is None or self.model.device.type != "cuda":
            return
        start = time.monotonic()
        count = capture_graphs(self.model, self._backend, self.scheduler, self._sizes, report)
        logger.info("%s: captured %d graphs in %.1f s", self._name, count, time.monotonic() - start)

    def start_loop(self) -> None:
        """Start the generation loop in its own thread."""
        self.manager.start()

    def stop_loop(self) -> None:
        """Stop the generation loop and drop its requests."""
        self.manager.stop(block=True, timeout=5.0, hard_stop=True)

    def schedule(self, number: str, request: GenerationRequest) -> None:
        """Hand a request that fits into the cache to the loop."""
        self.manager.add_request(
            input_ids=request.prompt,
            request_id=number,
            max_new_tokens=min(request.max_new_tokens, self.max_context - len(request.prompt)),
            streaming=True,
            eos_token_id=request.stop_token_ids,
            **{
                SAMPLING_KEY: encode_sampling(request.temperature, request.top_p, request.top_k, request.seed),
                SALT_KEY: request.cache_salt,
            },
        )

    def unschedule(self, number: str) -> None:
        """Take a request out of the loop, which does not report its end."""
        self.manager.cancel_request(number)

    def free_poisoned(self, numbers: Iterable[str]) -> None:
        """Take out requests whose cache pages may contain NaN."""
        try:
            free_poisoned_requests(self.manager, numbers)
        except RuntimeError:
            self.check_alive()

    def check_alive(self, error: str | None = None) -> None:
        """Raise EngineDied if the loop has ended: an error of one request ends that request, an error of the batch ends the loop."""
        ended, cause = loop_error(self.manager, LOOP_EXIT_SECONDS)
        if ended:
            # CUDA errors continue with lines of advice to programmers.
            reason = (str(cause or error or "no reason given") or repr(cause)).splitlines()[0]
            raise EngineDied(f"the generation loop has died: {reason}") from cause

    @property
    def steps(self) -> int:
        """Steps so far."""
        return int(self.manager.current_batch)

    @property
    def cache_use(self) -> float:
        """The used fraction of the KV cache."""
        return round(1.0 - float(self._cache.compute_free_capacity()), 4)

    @property
    def evictions(self) -> int:
        """Requests whose pages were taken away and computed again."""
        return self._evictions.count
