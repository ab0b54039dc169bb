"""A Llama decoder with merged projections, a paged KV cache, and attention over any mix of prompt chunks and single tokens."""

from dataclasses import dataclass
from typing import Any

import flash_attn_interface  # noqa: F401  (registers torch.ops._vllm_fa3_C)
import torch
import triton
from torch import Tensor

from benchmarks.gpu.core_prototype.kernels import add_rms_norm, rotate_and_append, silu_multiply

PAGE = 256
MAX_CONTEXT = 4096


@dataclass(frozen=True)
class Step:
    """The tensors of one step on the device: T tokens of R requests, both padded.

    ``positions`` and ``slots`` (cache slot, -1 for padding) have T elements; ``query_ends`` has R + 1 cumulative query lengths;
    ``context_lengths`` and ``last`` (index of each request's last token) have R; ``pages`` is the (R, pages) page table.
    """

    positions: Tensor
    slots: Tensor
    query_ends: Tensor
    context_lengths: Tensor
    pages: Tensor
    last: Tensor
    max_query: int


@dataclass(frozen=True)
class _Layer:
    qkv: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor
    input_norm: Tensor
    mlp_norm: Tensor


class PagedLlama:
    """The forward pass over merged weights of a ``LlamaForCausalLM``, bf16 on one GPU. ``pages`` sizes the KV cache."""

    def __init__(self, llama: Any, pages: int) -> None:
        config = llama.config
        self.vocabulary: int = config.vocab_size
        self.pages = pages
        self._query_heads: int = config.num_attention_heads
        self._key_heads: int = config.num_key_value_heads
        self._size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._epsilon: float = config.rms_norm_eps
        self._layers = [self._merge(layer) for layer in llama.model.layers]
        self._embedding = llama.model.embed_tokens.weight.data
        self._head = llama.lm_head.weight.data
        self._norm = llama.model.norm.weight.data
        device = self._embedding.device
        base = config.rope_parameters["rope_theta"] if hasattr(config, "rope_parameters") else config.rope_theta
        frequencies = 1.0 / (base ** (torch.arange(0, self._size, 2, device=device).float() / self._size))
        angles = torch.outer(torch.arange(MAX_CONTEXT, device=device).float(), frequencies)
        self._cosines, self._sines = angles.cos().contiguous(), angles.sin().contiguous()
        shape = (len(self._layers), pages, PAGE, self._key_heads, self._size)
        self._keys = torch.zeros(shape, device=device, dtype=self._embedding.dtype)
        self._values = torch.zeros_like(self._keys)

    @staticmethod
    def _merge(layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        merged = _Layer(
            torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]).contiguous(),
            attention.o_proj.weight.data,
            torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).contiguous(),
            mlp.down_proj.weight.data,
            layer.input_layernorm.weight.data,
            layer.post_attention_layernorm.weight.data,
        )
        # The separate projections are not needed any more; an 8B model would otherwise hold most weights twice.
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            projection.weight = None
        return merged

    def logits(self, ids: Tensor, step: Step) -> Tensor:
        """Run one step and return the (R, vocabulary) logits of each request's last token; keys and values join the cache."""
        tokens, requests = ids.shape[0], step.context_lengths.shape[0]
        hidden = torch.nn.functional.embedding(ids, self._embedding)
        residual, normed = torch.empty_like(hidden), torch.empty_like(hidden)
        width, queries = hidden.shape[1], self._query_heads * self._size
        heads = self._query_heads + 2 * self._key_heads
        block = triton.next_power_of_2(width)
        # Planned once for all layers; without it the kernel plans again in each of them.
        plan = torch.ops._vllm_fa3_C.get_scheduler_metadata(
            *(requests, step.max_query, MAX_CONTEXT, self._query_heads, self._key_heads, self._size, self._size, hidden.dtype),
            *(step.context_lengths, step.query_ends, None, None, None, None, PAGE, 0, True, -1, -1, False, 1, None, 0),
        )
        for number, layer in enumerate(self._layers):
            first = number == 0
            add_rms_norm[(tokens,)](
                hidden, residual, layer.input_norm, normed, width, self._epsilon, FIRST=first, BLOCK=block, num_warps=8
            )
            qkv = normed @ layer.qkv.T
            rotate_and_append[(tokens, heads)](
                *(qkv, step.positions, step.slots, self._cosines, self._sines, self._keys[number], self._values[number]),
                heads * self._size,
                QUERY_HEADS=self._query_heads,
                KEY_HEADS=self._key_heads,
                SIZE=self._size,
                num_warps=1,
            )
            attended = self._attend(qkv[:, :queries].view(tokens, self._query_heads, self._size), number, step, plan)
            hidden = attended.view(tokens, queries) @ layer.output.T
            add_rms_norm[(tokens,)](
                hidden, residual, layer.mlp_norm, normed, width, self._epsilon, FIRST=False, BLOCK=block, num_warps=8
            )
            gate_up = normed @ layer.gate_up.T
            inner = gate_up.shape[1] // 2
            gated = gate_up.new_empty(tokens, inner)
            silu_multiply[(tokens, triton.cdiv(inner, 1024))](gate_up, gated, inner, BLOCK=1024)
            hidden = gated @ layer.down.T
        add_rms_norm[(tokens,)](hidden, residual, self._norm, normed, width, self._epsilon, FIRST=False, BLOCK=block, num_warps=8)
        return normed[step.last] @ self._head.T

    def _attend(self, query: Tensor, layer: int, step: Step, plan: Tensor) -> Tensor:
        out, *_ = torch.ops._vllm_fa3_C.fwd(
            *(query, self._keys[layer], self._values[layer], None, None, None, None, step.query_ends, None, None),
            *(
                None,
                step.context_lengths,
                step.max_query,
                MAX_CONTEXT,
                step.pages,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
            ),
            *(self._size**-0.5, True, -1, -1, 0.0, True, plan, 1, None, 0, None, 1, 0, None),
        )
        return out
