"""Tiny Llama in a GGUF file: one layer of random weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SIZE, INNER, HEADS = 32, 64, 4


def write_gguf(
    path: Path,
    tokens: Sequence[str],
    *,
    context: int,
    token_types: Sequence[int],
    merge: str,
    begin: int,
    end: int,
    add_fields: Callable[[Any], None] = lambda writer: None,
    change: Mapping[str, Callable[[Any], None]] | None = None,
) -> None:
    """Write the model with a GPT-2 tokenizer of these tokens, which has a single ``merge``, as readers insist on one.

    ``add_fields`` gets the ``GGUFWriter`` for further fields, and ``change`` functions that edit the weights with their names.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(token_types))
    writer.add_token_merges([merge])
    writer.add_bos_token_id(begin)
    writer.add_eos_token_id(end)
    add_fields(writer)
    shapes = {
        "token_embd": (len(tokens), SIZE),
        "output_norm": (SIZE,),
        "output": (len(tokens), SIZE),
        "blk.0.attn_norm": (SIZE,),
        "blk.0.ffn_norm": (SIZE,),
        **{f"blk.0.attn_{part}": (SIZE, SIZE) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (INNER, SIZE),
        "blk.0.ffn_up": (INNER, SIZE),
        "blk.0.ffn_down": (SIZE, INNER),
    }
    generator = np.random.default_rng(1)
    for name, shape in shapes.items():
        values = generator.standard_normal(shape).astype(np.float32)
        if change is not None and name in change:
            change[name](values)
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
