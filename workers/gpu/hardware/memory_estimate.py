"""How much memory a model takes, and whether a GPU has it: the arithmetic, with its terms, so that a refusal can show it.

Weights are counted from safetensors headers where they lie here, else from ``parameters`` of the models file. It knows
neither NVML nor processes, and loads nothing.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from shared.errors import EnginehouseError
from shared.models.catalogue import ECHO, ModelEntry
from workers.gpu.hardware.devices import GIB, Gpu, format_gib
from workers.gpu.weights import find_prepared_folder

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_FLOATS = ("F64", "F32", "F16", "BF16")

# The CUDA context, kernels, and what a step needs beside weights and cache.
KERNELS = GIB
# The cache must hold one request as long as the context, or all that may be in flight at this length.
TOKENS_IN_FLIGHT = 1024


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of one replica in bytes, over all its GPUs; ``terms`` says what it is made of."""

    weights: int
    cache: int
    kernels: int
    gpus: int
    terms: str

    @property
    def each(self) -> int:
        """On each of its GPUs."""
        return (self.weights + self.cache) // self.gpus + self.kernels


@dataclass(frozen=True)
class _Cache:
    bytes_per_token: int
    context: int
    dtype: str


def estimate_memory(entry: ModelEntry, prepared: Path) -> MemoryEstimate:
    """What one replica of ``entry`` takes, as far as it can be known before it is loaded; never downloads.

    ``prepared`` is the folder of prepared models. What is not known counts nothing, and the terms say so.
    """
    gpus = max(1, entry.gpus)
    if entry.engine == ECHO:
        return MemoryEstimate(0, 0, 0, gpus, "the echo engine takes no memory of a GPU")
    try:
        folder = find_prepared_folder(entry, prepared)
    except EnginehouseError:
        folder = None
    cache = _cache(entry, folder) if folder is not None else None
    dtype = entry.dtype if entry.dtype != "auto" else cache.dtype if cache else "bfloat16"
    parameters = _parameters(folder) if folder is not None else 0
    weights = parameters * BYTES[dtype] if parameters else _bytes_as_stored(folder) if folder is not None else 0
    if not weights and entry.parameters:
        parameters, weights = entry.parameters, entry.parameters * BYTES[dtype]
    terms = [f"weights {format_gib(weights)}" + (f" ({parameters:,} parameters in {dtype})" if parameters else "")]
    if not weights:
        terms = ["weights of unknown size (they are not on this machine, and its entry has no parameters)"]
    cache_bytes = 0
    if cache is not None:
        tokens = max(cache.context, entry.max_in_flight * min(cache.context, TOKENS_IN_FLIGHT))
        cache_bytes = tokens * cache.bytes_per_token
        terms.append(f"cache {format_gib(cache_bytes)} ({tokens:,} tokens of {cache.bytes_per_token / 1024:.0f} KiB)")
    else:
        terms.append("cache of unknown size")
    terms.append(f"kernels {format_gib(KERNELS)}" + (" on each GPU" if gpus > 1 else ""))
    return MemoryEstimate(weights, cache_bytes, KERNELS, gpus, " + ".join(terms))


def explain_shortage(entry: ModelEntry, need: MemoryEstimate, gpus: Sequence[Gpu], *, whole: bool = False) -> str:
    """Why one replica cannot be on these GPUs, with the arithmetic; nothing if it can.

    ``whole`` counts all memory of the GPUs as if nobody used any, else what is free now.
    """
    lacking = []
    for gpu in gpus:
        room = int(gpu.memory_total * entry.gpu_share)
        room = room if whole else min(room, gpu.memory_free)
        if need.each > room:
            share = f" at gpu_share {entry.gpu_share:g}" if entry.gpu_share < 1 else ""
            of = (
                f"has {format_gib(room)}{share}"
                if whole
                else f"has {format_gib(room)} free{share} of {format_gib(gpu.memory_total)}"
            )
            lacking.append(f"GPU {gpu.index} ({gpu.name}) {of}")
    if not lacking:
        return ""
    each = f" on each of {need.gpus} GPUs" if need.gpus > 1 else ""
    return f"{entry.name} needs {format_gib(need.each)}{each}: {need.terms}; {', '.join(lacking)}"


def _cache(entry: ModelEntry, folder: Path) -> _Cache | None:
    """The key-value cache by the model's own configuration; layers that keep only a window are counted as if they kept all."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        config = config | config.get("text_config", {})
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
        dtype = dtype if dtype in BYTES else "bfloat16"
        size = BYTES[entry.dtype if entry.dtype != "auto" else dtype]
        per_token = 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * width * size
        context = entry.max_context or config["max_position_embeddings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _Cache(per_token, context, dtype)


def _parameters(folder: Path) -> int:
    """How many numbers the float tensors have; 0 for weights in a form of their own, such as quantized ones."""
    count = 0
    for file in sorted(folder.glob("*.safetensors")):
        for tensor in _tensors(file):
            if tensor["dtype"] not in _FLOATS:
                return 0
            count += prod(tensor["shape"])
    return count


def _bytes_as_stored(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _tensors(file: Path) -> list[dict[str, Any]]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return [tensor for name, tensor in header.items() if name != "__metadata__"]
