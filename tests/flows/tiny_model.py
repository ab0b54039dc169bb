"""Makes a tiny model with random weights, in a fraction of a second: what an engine needs, and no words."""

from pathlib import Path
from typing import Any

VOCABULARY = 128
POISON = 7
"""The token whose embedding is NaN in a poisoned model."""


def make_tiny_model(folder: Path, *, poisoned: bool = False, **config: Any) -> Path:
    """Save a Llama of two layers into ``folder``; ``config`` changes its shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**shape, **config}))
    for parameter in model.parameters():
        # The usual spread of a small model's weights makes it repeat one token for ever.
        parameter.data *= 10.0 if parameter.dim() > 1 else 1.0
    if poisoned:
        model.get_input_embeddings().weight.data[POISON] = torch.nan
    model.save_pretrained(folder)
    # An engine is given token ids, but a model's folder always has a tokenizer.
    (folder / "tokenizer.json").write_text("{}")
    return folder
