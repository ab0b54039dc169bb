"""Makes a tiny model with random weights, in a fraction of a second. Its words are ``w0``, ``w1`` and so on, a token each.

With ``byte_level``, its first 256 tokens are bytes instead, and another one is the end of a text.
"""

from pathlib import Path
from typing import Any

VOCABULARY = 128
BYTE_VOCABULARY, END = 264, 256
POISON = 7
"""The token whose embedding is NaN in a poisoned model."""


def make_tiny_model(folder: Path, *, poisoned: bool = False, byte_level: bool = False, **config: Any) -> Path:
    """Save a model of two layers into ``folder``, a Llama unless ``config`` has another ``model_type``."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(1)
    shape: dict[str, Any] = {
        "vocab_size": BYTE_VOCABULARY if byte_level else VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**{"model_type": "llama", **shape, **config}), attn_implementation="eager"
    )
    for parameter in model.parameters():
        # With the usual spread of a new model's weights it would repeat one token for ever.
        parameter.data *= 10.0 if parameter.dim() > 1 else 1.0
    if poisoned:
        model.get_input_embeddings().weight.data[POISON] = torch.nan
        # So that no healthy answer comes upon it by itself.
        model.get_output_embeddings().weight.data[POISON] = 0.0
    model.save_pretrained(folder)
    if byte_level:
        PreTrainedTokenizerFast(tokenizer_object=_byte_tokenizer(), eos_token="<end>").save_pretrained(folder)
        return folder
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


def _byte_tokenizer() -> Any:
    """A tokenizer without merges, whose token ids are the values of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # The printable stand-ins of GPT-2: bytes that are printable stand for themselves, the others for code points from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE({character: byte for byte, character in characters.items()}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


def tiny_entry(folder: Path, **fields: Any) -> dict[str, Any]:
    """The entry of a tiny model in a models file, as the default model."""
    return {"name": "tiny", "url": str(folder), "dtype": "float32", "default": True, "max_context": 1024, **fields}
