"""Fused forward pass for the decoders of the Llama family on a GPU: merged projections, and three kernels per layer beside them.

A step of one token, as when one request runs alone, has its own pass of five kernels per layer (``single_token_kernels``).
Llama, Mistral, Qwen2 and Qwen3 have the same layers. Other models, and sharded or quantized ones, run on the code of transformers.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn.functional import embedding, linear

from workers.gpu.engine.fused_kernels import add_rms_norm, rotate_and_append, silu_multiply
from workers.gpu.engine.paged_attention import FlashAttention
from workers.gpu.engine.single_token_kernels import SingleTokenAttention, narrow_linear

_FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")


def can_fuse(model: Any) -> bool:
    """Whether ``FusedDecoder`` computes what ``model`` does."""
    config = model.config
    if type(model).__name__ not in _FAMILY or config.hidden_act != "silu" or model.dtype not in (torch.bfloat16, torch.float16):
        return False
    decoder = model.model
    size = decoder.layers[0].self_attn.head_dim
    types = getattr(config, "layer_types", None) or ["full_attention"]
    return (
        all(type(module) is torch.nn.Linear for name, module in model.named_modules() if name.endswith(("_proj", "lm_head")))
        # The weights of a model that is spread over several devices are tensors of a type of their own.
        and all(type(parameter.data) is torch.Tensor for parameter in model.parameters())
        and set(types) == {"full_attention"}
        and not (type(model).__name__ == "MistralForCausalLM" and config.sliding_window)
        and decoder.rotary_emb.rope_type in _STATIC_ROPE
        and decoder.rotary_emb.inv_freq.numel() * 2 == size
        and size in (32, 64, 128, 256)
    )


@dataclass(frozen=True)
class _Layer:
    qkv: Any
    output: Any
    gate_up: Any
    down: Any
    input_norm: Tensor
    mlp_norm: Tensor
    query_norm: Tensor | None
    key_norm: Tensor | None


class FusedDecoder:
    """The forward pass of ``model`` over merged weights, of which its own weights become views."""

    def __init__(self, model: Any, attention: FlashAttention, max_context: int) -> None:
        config = model.config
        self._attention = attention
        self._query_heads: int = config.num_attention_heads
        self._key_heads: int = config.num_key_value_heads
        self._size: int = model.model.layers[0].self_attn.head_dim
        self._scale: float = model.model.layers[0].self_attn.scaling
        self._epsilon: float = config.rms_norm_eps
        self._layers = [_merge_layer(layer) for layer in model.model.layers]
        self._embedding = model.model.embed_tokens.weight
        self._head, self._head_bias = model.lm_head.weight, model.lm_head.bias
        self._norm = model.model.norm.weight
        self._attention_of_one = SingleTokenAttention(self._query_heads, self._key_heads, self._size, model.device)
        positions = torch.arange(max_context, device=model.device)[None]
        exact = torch.zeros(1, device=model.device, dtype=torch.float32)
        self._cosines, self._sines = (
            table[0, :, : self._size // 2].contiguous() for table in model.model.rotary_emb(exact, positions)
        )

    def forward(self, ids: Tensor, positions: Tensor, last: Tensor) -> Tensor:
        """The logits after the tokens at ``last``; keys and values go to the cache slots of the step."""
        hidden = embedding(ids, self._embedding)
        return self._forward_token(hidden, positions, last) if len(ids) == 1 else self._forward_tokens(hidden, positions, last)

    def _forward_token(self, residual: Tensor, positions: Tensor, last: Tensor) -> Tensor:
        step, epsilon = self._attention.step, self._epsilon
        assert step is not None
        # FlashAttention reads a long context faster when it may split it.
        is_long = step.num_splits != 1
        for number, layer in enumerate(self._layers):
            qkv = narrow_linear(residual, *layer.qkv, norm=layer.input_norm, epsilon=epsilon)
            attended = self._attend(qkv, positions, number) if is_long else self._attend_one(qkv, positions, number)
            narrow_linear(attended, *layer.output, add_to=residual)
            gated = narrow_linear(residual, *layer.gate_up, norm=layer.mlp_norm, epsilon=epsilon, gate=True)
            narrow_linear(gated, *layer.down, add_to=residual)
        logits = narrow_linear(residual, self._head, self._head_bias, norm=self._norm, epsilon=epsilon)
        return logits if len(last) == 1 else logits[last]

    def _forward_tokens(self, hidden: Tensor, positions: Tensor, last: Tensor) -> Tensor:
        residual, normed = torch.empty_like(hidden), torch.empty_like(hidden)
        for number, layer in enumerate(self._layers):
            self._add_norm(hidden, residual, layer.input_norm, normed, first=number == 0)
            hidden = linear(self._attend(linear(normed, *layer.qkv), positions, number), *layer.output)
            self._add_norm(hidden, residual, layer.mlp_norm, normed)
            gate_up = linear(normed, *layer.gate_up)
            inner = gate_up.shape[1] // 2
            gated = gate_up.new_empty(len(hidden), inner)
            silu_multiply[(len(hidden), triton.cdiv(inner, 1024))](gate_up, gated, inner, BLOCK=1024)
            hidden = linear(gated, *layer.down)
        self._add_norm(hidden, residual, self._norm, normed)
        return linear(normed[last], self._head, self._head_bias)

    def _attend(self, qkv: Tensor, positions: Tensor, number: int) -> Tensor:
        """The attention of a layer, (tokens, heads times size). Keys and values of ``qkv`` go to the cache, its queries are rotated."""
        step = self._attention.step
        assert step is not None
        layer, tokens = self._layers[number], len(qkv)
        queries = self._query_heads * self._size
        heads = self._query_heads + 2 * self._key_heads
        rotate_and_append[(tokens, heads)](
            *(qkv, positions, step.slots, self._cosines, self._sines, layer.query_norm, layer.key_norm),
            *(self._attention.keys[number], self._attention.values[number], heads * self._size, self._epsilon),
            QUERY_HEADS=self._query_heads,
            KEY_HEADS=self._key_heads,
            SIZE=self._size,
            NORM=layer.query_norm is not None,
            num_warps=1,
        )
        query = qkv[:, :queries].view(tokens, self._query_heads, self._size)
        return self._attention.attend_pages(query, number, scale=self._scale).reshape(tokens, queries)

    def _attend_one(self, qkv: Tensor, positions: Tensor, number: int) -> Tensor:
        """``_attend`` for one token, in one kernel."""
        step, layer = self._attention.step, self._layers[number]
        assert step is not None
        return self._attention_of_one.attend(
            *(qkv, positions, step.slots, step.pages, self._cosines, self._sines),
            *(self._attention.keys[number], self._attention.values[number]),
            scale=self._scale,
            query_norm=layer.query_norm,
            key_norm=layer.key_norm,
            epsilon=self._epsilon,
        )

    def _add_norm(self, hidden: Tensor, residual: Tensor, weight: Tensor, out: Tensor, *, first: bool = False) -> None:
        width = hidden.shape[1]
        block = triton.next_power_of_2(width)
        add_rms_norm[(len(hidden),)](hidden, residual, weight, out, width, self._epsilon, FIRST=first, BLOCK=block, num_warps=8)


def _merge_layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    return _Layer(
        _merge(attention.q_proj, attention.k_proj, attention.v_proj),
        (attention.o_proj.weight, attention.o_proj.bias),
        _merge(mlp.gate_proj, mlp.up_proj),
        (mlp.down_proj.weight, mlp.down_proj.bias),
        layer.input_layernorm.weight,
        layer.post_attention_layernorm.weight,
        *(norm.weight if norm is not None else None for norm in norms),
    )


def _merge(*projections: Any) -> tuple[Tensor, Tensor | None]:
    """One matrix, and bias, of several projections of the same input. They keep views of it, so nothing is held twice."""
    weight = torch.cat([projection.weight.data for projection in projections])
    biases = [projection.bias for projection in projections]
    bias = torch.cat([each.data for each in biases]) if biases[0] is not None else None
    row = 0
    for projection in projections:
        end = row + projection.out_features
        projection.weight.data = weight[row:end]
        if bias is not None:
            projection.bias.data = bias[row:end]
        row = end
    return weight, bias
