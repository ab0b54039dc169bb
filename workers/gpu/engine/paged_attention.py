"""Attention over a paged KV cache, as a function that the models of transformers call in each layer.

Keys and values of the step's tokens are written to the cache, then each request attends to its own pages. No request ever reads
another's: a mask does not stop NaN, because NaN times zero is NaN, so one poisoned request would poison all of them.
"""

import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_flash_attention_utils import lazy_import_flash_attention
from transformers.modeling_utils import AttentionInterface

from shared.errors import ModelUnavailable
from workers.gpu.engine.step import StepInput

IMPLEMENTATION = "enginehouse_paged"
"""The name of this attention for transformers. It makes no mask for a name that it does not know."""


@dataclass(frozen=True)
class LayerShape:
    """Key and value heads of a layer, and the sizes of one."""

    heads: int
    key_size: int
    value_size: int


class PagedAttention:
    """The KV cache of one model, and attention over it. Subclasses implement ``attend``."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        """By layer: (pages, page size, heads, size)."""

    def register(self, model: Any) -> None:
        """Have ``model`` call this."""
        # The compiler would compile it again for each layer.
        AttentionInterface.register(IMPLEMENTATION, torch.compiler.disable(self.attend))  # type: ignore[no-untyped-call]
        model.set_attn_implementation(IMPLEMENTATION)

    def allocate(self, layers: dict[int, LayerShape], pages: int, page_size: int, *, dtype: torch.dtype, device: Any) -> None:
        """Allocate the cache. Zeroed, because a kernel may read, and then mask, what has never been written."""

        def zeros(heads: int, size: int) -> Tensor:
            shape = (pages, page_size, heads, size)
            if torch.device(device).type != "cpu":
                return torch.zeros(shape, dtype=dtype, device=device)
            # torch would write all of it. This way, the system provides memory where the first tokens are written.
            return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)

        self.keys = {layer: zeros(shape.heads, shape.key_size) for layer, shape in layers.items()}
        self.values = {layer: zeros(shape.heads, shape.value_size) for layer, shape in layers.items()}

    def zero_pages(self, pages: list[int]) -> None:
        """Zero these pages in all layers."""
        if pages:
            for cached in (*self.keys.values(), *self.values.values()):
                cached[pages] = 0

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """Drop-in for the attention functions of transformers: (1, heads, tokens, size) to (1, tokens, heads, size)."""
        raise NotImplementedError

    def _write(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.keys[layer], self.values[layer]
        for cached, states in ((keys, key), (values, value)):
            cached.flatten(0, 1).index_copy_(0, slots, states[0].transpose(0, 1))
        return keys, values


def layer_shapes(model: Any) -> dict[int, LayerShape]:
    """The shape of each layer's keys and values, recorded while the model reads one token. Raises ModelUnavailable."""
    shapes: dict[int, LayerShape] = {}

    def record(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        if options.get("s_aux") is not None:
            raise ModelUnavailable("The model has attention sinks, which the engine does not support.")
        shapes[module.layer_idx] = LayerShape(key.shape[1], key.shape[3], value.shape[3])
        # One token attends to itself.
        shared = query.shape[1] // value.shape[1]
        return value.repeat_interleave(shared, dim=1).transpose(1, 2), None

    AttentionInterface.register(IMPLEMENTATION, record)
    model.set_attn_implementation(IMPLEMENTATION)
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        model(input_ids=token, position_ids=token, use_cache=False)
    return shapes


class SdpaAttention(PagedAttention):
    """Attention of torch, one prompt after the other and single tokens as a batch. For the CPU, and GPUs without FlashAttention."""

    name = "sdpa"

    def __init__(self) -> None:
        super().__init__()
        self._step: _SdpaStep | None = None

    def begin_step(self, step: StepInput, table: Any, slots: Tensor) -> None:
        """Attend to the requests of this step until the next call; ``table`` (numpy) has the pages of each row."""
        page_size = next(iter(self.keys.values())).shape[1]
        self._step = _SdpaStep(step, table, page_size, slots)

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        step = self._step
        assert step is not None
        keys, values = (cached.flatten(0, 1) for cached in self._write(module.layer_idx, step.slots, key, value))
        window, scale = options.get("sliding_window"), options.get("scaling")
        softcap = options.get("softcap")
        output = query.new_empty(query.shape[2], query.shape[1], value.shape[3])
        if len(step.single_tokens):
            slots, mask = step.single_keys(window)
            count, heads = len(step.single_tokens), key.shape[1]
            own_keys, own_values = (
                cached.index_select(0, slots.flatten()).view(*slots.shape, *cached.shape[1:]).transpose(1, 2)
                for cached in (keys, values)
            )
            # The queries that share a key head are rows of one product.
            queries = query[0].index_select(1, step.single_tokens).transpose(0, 1).view(count, heads, -1, query.shape[3])
            single = _attend(queries, own_keys, own_values, mask, scale, is_causal=False, softcap=softcap)
            output.index_copy_(0, step.single_tokens, single.reshape(count, query.shape[1], -1))
        for prompt in step.prompts:
            slots, mask = step.prompt_keys(prompt, window)
            own_keys, own_values = (cached.index_select(0, slots).transpose(0, 1)[None] for cached in (keys, values))
            result = _attend(
                query[:, :, prompt.tokens], own_keys, own_values, mask, scale, is_causal=mask is None, softcap=softcap
            )
            output[prompt.tokens] = result[0].transpose(0, 1)
        return output[None], None


@dataclass(frozen=True)
class _Prompt:
    tokens: slice
    row: int
    start: int
    context: int


class _SdpaStep:
    """Where the requests of one step are among its tokens and in the cache; shared by all layers."""

    def __init__(self, step: StepInput, table: Any, page_size: int, slots: Tensor) -> None:
        self.slots = slots
        self._table, self._page_size, self._device = table, page_size, slots.device
        ends = np.cumsum(step.query_lengths)
        is_single = step.query_lengths == 1
        self.single_tokens = torch.from_numpy(ends[is_single] - 1).to(slots.device)
        self._single_rows, self._single_contexts = step.rows[is_single], step.contexts[is_single]
        self.prompts = [
            _Prompt(slice(end - length, end), row, context - length, context)
            for end, length, row, context in zip(
                ends.tolist(), step.query_lengths.tolist(), step.rows.tolist(), step.contexts.tolist(), strict=True
            )
            if length > 1
        ]
        self._single_keys: dict[int | None, tuple[Tensor, Tensor | None]] = {}
        self._prompt_keys: dict[tuple[int, int | None], tuple[Tensor, Tensor | None]] = {}

    def single_keys(self, window: int | None) -> tuple[Tensor, Tensor | None]:
        """Cache slots of the keys of requests with one query, (requests, keys), and their mask.

        Shorter ones are padded with their own last key, masked, so that they read nothing of another.
        """
        if window not in self._single_keys:
            last = self._single_contexts - 1
            first = np.maximum(last - window + 1, 0) if window else np.zeros_like(last)
            reach = first[:, None] + np.arange(int((last - first).max()) + 1)
            own = np.minimum(reach, last[:, None])
            is_padding = reach > last[:, None]
            mask = torch.from_numpy(~is_padding)[:, None, None].to(self._device) if is_padding.any() else None
            self._single_keys[window] = self._slots(self._single_rows[:, None], own), mask
        return self._single_keys[window]

    def prompt_keys(self, prompt: _Prompt, window: int | None) -> tuple[Tensor, Tensor | None]:
        """Cache slots of the keys of a prompt's chunk, and the mask. None stands for a causal one."""
        key = (prompt.row, window)
        if key not in self._prompt_keys:
            first = max(prompt.start - window + 1, 0) if window else 0
            keys = np.arange(first, prompt.context)
            mask = None
            if prompt.start or (window and prompt.context > window):
                at = np.arange(prompt.start, prompt.context)[:, None]
                visible = keys <= at if not window else (keys <= at) & (keys > at - window)
                mask = torch.from_numpy(visible).to(self._device)
            self._prompt_keys[key] = self._slots(prompt.row, keys), mask
        return self._prompt_keys[key]

    def _slots(self, rows: Any, positions: Any) -> Tensor:
        size = self._page_size
        slots = self._table[rows, positions // size].astype(np.int64) * size + positions % size
        return torch.from_numpy(slots).to(self._device)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, *, is_causal: bool, softcap: float | None
) -> Tensor:
    """(batch, heads, queries, size), with fewer key heads than query heads if they are shared. ``mask`` is True where visible."""
    shared = query.shape[1] // key.shape[1]
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, mask, scale=scale, is_causal=is_causal, enable_gqa=shared > 1)
    key, value = (states.repeat_interleave(shared, dim=1) for states in (key, value))
    scores = query.float() @ key.float().transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
    scores = softcap * torch.tanh(scores / softcap)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).to(value.dtype) @ value


class FlashAttention(PagedAttention):
    """FlashAttention-3 or 2, which read the pages in place; any mix of chunks and single tokens is one call per layer."""

    def __init__(self, implementation: str) -> None:
        super().__init__()
        self.name = implementation
        functions = lazy_import_flash_attention(implementation)[0]
        self._is_third = implementation.endswith("3")
        self._function: Any = functions[2] if self._is_third else functions[1]
        module = sys.modules.get(inspect.unwrap(self._function).__module__)
        self._plan_function: Callable[..., Tensor] | None = getattr(module, "get_scheduler_metadata", None)
        self.step: FlashStep | None = None

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        step = self.step
        assert step is not None
        self._write(module.layer_idx, step.slots, key, value)
        output = self.attend_pages(
            query[0].transpose(0, 1),
            module.layer_idx,
            scale=options.get("scaling"),
            window=options.get("sliding_window"),
            softcap=options.get("softcap") or 0.0,
        )
        return output[None], None

    def attend_pages(
        self, query: Tensor, layer: int, *, scale: float | None, window: int | None = None, softcap: float = 0.0
    ) -> Tensor:
        """Attend to pages that hold the step's own keys and values already. ``query``: (tokens, heads, size)."""
        step = self.step
        assert step is not None
        keys, values = self.keys[layer], self.values[layer]
        sizes = (window - 1, 0) if window else (-1, -1)
        common: dict[str, Any] = {"softmax_scale": scale, "causal": True, "window_size": sizes, "softcap": softcap}
        if not self._is_third:
            output = self._function(
                *(query, keys, values, step.query_ends, step.context_ends, step.max_query, step.max_context),
                block_table=step.pages,
                **common,
            )
        else:
            output = self._function(
                *(query, keys, values),
                cache_seqlens=step.contexts,
                page_table=step.pages,
                cu_seqlens_q=step.query_ends,
                max_seqlen_q=step.max_query,
                num_splits=step.num_splits,
                **self._plan(query, keys, values, sizes, softcap),
                **common,
            )
        result: Tensor = output[0] if isinstance(output, tuple) else output
        return result

    def _plan(self, query: Tensor, keys: Tensor, values: Tensor, window: tuple[int, int], softcap: float) -> dict[str, Tensor]:
        """The kernel's plan, made once for all layers of a shape; without it each layer plans again."""
        step, function = self.step, self._plan_function
        assert step is not None
        if function is None:
            return {}
        key = (query.shape[1:], keys.shape[2:], window, softcap > 0)
        if key not in step.plans:
            step.plans[key] = function(
                *(len(step.contexts), step.max_query, step.max_context, query.shape[1], keys.shape[2], query.shape[2]),
                *(step.contexts, query.dtype, values.shape[3]),
                cu_seqlens_q=step.query_ends,
                page_size=keys.shape[1],
                causal=True,
                window_size=window,
                has_softcap=softcap > 0,
                num_splits=step.num_splits,
            )
        return {"scheduler_metadata": step.plans[key]}


@dataclass(frozen=True)
class FlashStep:
    """Tensors of one step on the device, int32: T tokens of R requests, both perhaps padded.

    ``slots`` (T, int64); ``query_ends`` and ``context_ends`` (R + 1) are cumulative; ``contexts`` (R); ``pages`` (R, pages).
    ``max_context`` is that of a full page table. ``num_splits``: 1 to read each context in one block, 0 to let the kernel choose.
    """

    slots: Tensor
    query_ends: Tensor
    context_ends: Tensor
    contexts: Tensor
    pages: Tensor
    max_query: int
    max_context: int
    num_splits: int
    plans: dict[Any, Tensor] = field(default_factory=dict)
