"""Memory estimate of a model, and whether a GPU has that much, with a breakdown that a rejection can show.

Weights are counted from local safetensors headers, else from ``parameters`` of the models file. Loads nothing.
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

# The CUDA context, kernels, and what a step needs besides weights and cache.
KERNELS = GIB
# The cache must hold one request of the whole context, or max_in_flight requests of this length.
TOKENS_IN_FLIGHT = 1024


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one replica in bytes, over all its GPUs; ``breakdown`` explains it."""

    weights: int
    cache: int
    kernels: int
    gpus: int
    breakdown: str

    @property
    def per_gpu(self) -> int:
        """Bytes on each of its GPUs."""
        return (self.weights + self.cache) // self.gpus + self.kernels


@dataclass(frozen=True)
class _CacheShape:
    bytes_per_token: int
    context: int
    dtype: str


def estimate_memory(entry: ModelEntry, prepared: Path) -> MemoryEstimate:
    """The memory that one replica of ``entry`` takes, as far as is known before it is loaded; never downloads.

    ``prepared`` is the folder of prepared models. Unknown parts count as nothing, and the breakdown says so.
    """
    gpus = max(1, entry.gpus)
    if entry.engine == ECHO:
        return MemoryEstimate(0, 0, 0, gpus, "the echo engine takes no GPU memory")
    if entry.uses_server:
        return MemoryEstimate(0, 0, 0, gpus, "the model runs on a server")
    try:
        folder = find_prepared_folder(entry, prepared)
    except EnginehouseError:
        folder = None
    cache = _cache_shape(entry, folder) if folder is not None else None
    dtype = entry.dtype if entry.dtype != "auto" else cache.dtype if cache else "bfloat16"
    parameters = _count_parameters(folder) if folder is not None else 0
    weights = parameters * BYTES[dtype] if parameters else _file_sizes(folder) if folder is not None else 0
    if not weights and entry.parameters:
        parameters, weights = entry.parameters, entry.parameters * BYTES[dtype]
    terms = [f"weights {format_gib(weights)}" + (f" ({parameters:,} parameters in {dtype})" if parameters else "")]
    if not weights:
        terms = ["weights of unknown size (not on this machine, and the model's entry has no parameters)"]
    cache_bytes = 0
    if cache is not None:
        tokens = max(cache.context, entry.max_in_flight * min(cache.context, TOKENS_IN_FLIGHT))
        cache_bytes = tokens * cache.bytes_per_token
        terms.append(f"cache {format_gib(cache_bytes)} ({tokens:,} tokens of {cache.bytes_per_token / 1024:.0f} KiB)")
    else:
        terms.append("cache of unknown size")
    terms.append(f"kernels {format_gib(KERNELS)}" + (" on each GPU" if gpus > 1 else ""))
    return MemoryEstimate(weights, cache_bytes, KERNELS, gpus, " + ".join(terms))


def explain_shortage(entry: ModelEntry, estimate: MemoryEstimate, gpus: Sequence[Gpu], *, ignore_usage: bool = False) -> str:
    """Why one replica does not fit on these GPUs, with the breakdown; empty if it fits.

    ``ignore_usage`` counts all memory of the GPUs, as if they were idle, else what is free now.
    """
    lacking = []
    for gpu in gpus:
        available = int(gpu.memory_total * entry.gpu_share)
        available = available if ignore_usage else min(available, gpu.memory_free)
        if estimate.per_gpu > available:
            share = f" at gpu_share {entry.gpu_share:g}" if entry.gpu_share < 1 else ""
            of = (
                f"has {format_gib(available)}{share}"
                if ignore_usage
                else f"has {format_gib(available)} free{share} of {format_gib(gpu.memory_total)}"
            )
            lacking.append(f"GPU {gpu.index} ({gpu.name}) {of}")
    if not lacking:
        return ""
    on_each = f" on each of {estimate.gpus} GPUs" if estimate.gpus > 1 else ""
    return f"{entry.name} needs {format_gib(estimate.per_gpu)}{on_each}: {estimate.breakdown}; {', '.join(lacking)}"


def _cache_shape(entry: ModelEntry, folder: Path) -> _CacheShape | None:
    """The KV cache according to the model's configuration; sliding-window layers are counted as if they kept everything."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        config = config | config.get("text_config", {})
        heads = config["num_attention_heads"]
        head_size = config.get("head_dim") or config["hidden_size"] // heads
        dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
        dtype = dtype if dtype in BYTES else "bfloat16"
        item_size = BYTES[entry.dtype if entry.dtype != "auto" else dtype]
        per_token = 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * head_size * item_size
        context = entry.max_context or config["max_position_embeddings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _CacheShape(per_token, context, dtype)


def _count_parameters(folder: Path) -> int:
    """The number of parameters in float tensors; 0 if any tensor is not float, such as quantized weights."""
    count = 0
    for file in sorted(folder.glob("*.safetensors")):
        for tensor in _tensors(file):
            if tensor["dtype"] not in _FLOATS:
                return 0
            count += prod(tensor["shape"])
    return count


def _file_sizes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _tensors(file: Path) -> list[dict[str, Any]]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return [tensor for name, tensor in header.items() if name != "__metadata__"]
