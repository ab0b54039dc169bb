"""Models of real shapes with random weights: the cost of a step depends only on the shape, and no download is needed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LLAMA: dict[str, Any] = {"vocab_size": 128256, "rope_theta": 500000.0, "max_position_embeddings": 131072}
SHAPES: dict[str, dict[str, Any]] = {
    "8b": LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "1b": LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "70b": LLAMA
    | {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 2048,
        # Heads of 64, for which every engine has kernels.
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    },
}
CONTEXT = 4096


def model_folder(name: str, where: Path, device: str) -> Path:
    """The folder of a model, created on ``device`` once and reused by later benchmarks on this machine."""
    folder = where / name
    if (folder / "config.json").exists() and (folder / "tokenizer.json").exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    config = LlamaConfig(**SHAPES[name], bos_token_id=None, eos_token_id=None)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    if name == "tiny":
        for parameter in model.parameters():
            # With the usual initialization it would repeat one token forever.
            parameter.data *= 10.0 if parameter.dim() > 1 else 1.0
    model.save_pretrained(folder)
    _save_tokenizer(folder, SHAPES[name]["vocab_size"])
    return folder


def models_file(
    name: str,
    folder: Path,
    at: Path,
    *,
    device: str,
    in_flight: int,
    gpus: int = 1,
    context: int = CONTEXT,
    engine: str = "transformers",
    engine_args: Mapping[str, Any] | None = None,
    adapters: Mapping[str, Path] | None = None,
) -> Path:
    """Write a models file with only this model."""
    entry: dict[str, Any] = {
        "name": name,
        "url": str(folder.resolve()),
        "dtype": "float32" if device == "cpu" else "bfloat16",
        "max_context": context,
        "max_in_flight": in_flight,
        "max_tokens": 1024,
        "gpus": 0 if device == "cpu" else gpus,
        "default": True,
        "engine": engine,
    }
    if engine_args:
        entry["engine_args"] = dict(engine_args)
    if adapters:
        entry["adapters"] = {adapter: str(where.resolve()) for adapter, where in adapters.items()}
    embedding = {"name": "none", "url": "/nowhere", "task": "embed"}
    at.write_text(json.dumps([entry, embedding]))
    return at


def adapter_folder(name: str, where: Path, rank: int) -> Path:
    """The folder of a LoRA adapter of a model with random weights: it changes the queries and values of every layer."""
    import torch
    from safetensors.torch import save_file

    folder, shape = where / f"{name}-rank-{rank}", SHAPES[name]
    folder.mkdir(exist_ok=True)
    hidden = shape["hidden_size"]
    head = shape.get("head_dim", hidden // shape["num_attention_heads"])
    outputs = {"q_proj": shape["num_attention_heads"] * head, "v_proj": shape["num_key_value_heads"] * head}
    generator = torch.Generator().manual_seed(rank)
    tensors = {}
    for layer in range(shape["num_hidden_layers"]):
        for module, width in outputs.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(rank, hidden, generator=generator) * hidden**-0.5
            tensors[f"{at}.lora_B.weight"] = torch.randn(width, rank, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "target_modules": sorted(outputs)}
    config |= {"bias": "none", "lora_dropout": 0.0, "fan_in_fan_out": False, "base_model_name_or_path": name}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _save_tokenizer(folder: Path, words: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def save_byte_tokenizer(folder: Path, name: str) -> None:
    """Replace the tokenizer of a model by one whose tokens are bytes and strings of bytes, which a grammar needs."""
    import itertools
    import string

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = itertools.chain.from_iterable(itertools.product(string.ascii_lowercase, repeat=length) for length in (2, 3, 4))
    tokens = itertools.chain(sorted(pre_tokenizers.ByteLevel.alphabet()), map("".join, pieces))
    vocabulary = {token: number for number, token in enumerate(itertools.islice(tokens, SHAPES[name]["vocab_size"]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
