"""Options of vLLM for a model's entry and for a request, as keyword arguments. Imports nothing of vLLM."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.messages import LOWEST_LOGPROB, GenerationRequest, TokenLogprobs
from workers.gpu.hardware.devices import GIB, Gpu

# vLLM sizes its cache so that a step fits within this fraction of a GPU. In use it takes some gigabytes more.
MEMORY_FRACTION = 0.88
# Left free where other processes hold memory of the GPU, because vLLM refuses to start if its fraction is not free.
FREE_MARGIN = 0.02
# For an engine that has run out of memory before.
REDUCED_MEMORY_FRACTION = 0.8

# Tokens of one step on a GPU with much memory, as vLLM's own server chooses; elsewhere vLLM's default is taken.
LARGE_GPU, LARGE_STEP_TOKENS = 70 * GIB, 8192

# vLLM takes no other ranks. A smaller adapter is padded.
ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Adapters whose requests may share a step. Each takes memory of the GPU and time of every step; others wait for one to finish.
ADAPTERS_AT_ONCE = 8

_SEEDS = 2**63
# The smallest top_p that vLLM accepts keeps only the most likely token, as 0 does.
_LOWEST_TOP_P = 1e-6


def engine_arguments(
    entry: ModelEntry, folder: Path, in_flight: int, gpus: Sequence[Gpu], *, adapter_ranks: Sequence[int] = ()
) -> dict[str, Any]:
    """Arguments of AsyncEngineArgs: from the entry's fields, then from its ``engine_args``. Raises ModelUnavailable for a large adapter."""
    stages = int(entry.engine_args.get("pipeline_parallel_size", 1))
    arguments: dict[str, Any] = {
        "model": str(folder),
        "tokenizer": str(folder),
        "dtype": entry.dtype,
        # vLLM takes the longest context that fits into memory for -1.
        "max_model_len": entry.max_context or -1,
        "max_num_seqs": in_flight,
        "trust_remote_code": entry.trust_remote_code,
        "tensor_parallel_size": max(1, entry.gpus // stages),
        # Load is counted from the output. vLLM's own counters cost time in each step.
        "disable_log_stats": True,
    }
    if gpus:
        arguments["gpu_memory_utilization"] = memory_fraction(entry.gpu_share, gpus, is_reduced=in_flight < entry.max_in_flight)
        if min(gpu.memory_total for gpu in gpus) >= LARGE_GPU:
            arguments["max_num_batched_tokens"] = LARGE_STEP_TOKENS
    if adapter_ranks:
        arguments |= {
            "enable_lora": True,
            "max_lora_rank": _fitting_rank(entry, max(adapter_ranks)),
            "max_loras": min(len(adapter_ranks), ADAPTERS_AT_ONCE),
            # The others stay in the memory of the machine.
            "max_cpu_loras": len(adapter_ranks),
        }
    return arguments | entry.engine_args


def _fitting_rank(entry: ModelEntry, rank: int) -> int:
    fitting = next((allowed for allowed in ADAPTER_RANKS if allowed >= rank), None)
    if fitting is None:
        raise ModelUnavailable(
            f"Model {entry.name}: an adapter has rank {rank}, and vLLM runs adapters of up to rank {ADAPTER_RANKS[-1]}. Remove it from adapters."
        )
    return fitting


def read_adapter_rank(folder: Path) -> int:
    """The largest rank of an adapter's matrices, from its ``adapter_config.json``. Raises ModelUnavailable for what is not LoRA."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if config.get("peft_type") != "LORA" or not all(type(rank) is int and rank > 0 for rank in ranks):
        raise ModelUnavailable(
            f"The adapter in {folder} has no rank (r) or its peft_type is not LORA: vLLM runs LoRA adapters only."
        )
    return int(max(ranks))


def memory_fraction(share: float, gpus: Sequence[Gpu], *, is_reduced: bool = False) -> float:
    """The fraction of each GPU's memory that vLLM may use, at most ``share`` of it and what is free on the fullest one."""
    free = min(gpu.memory_free / gpu.memory_total for gpu in gpus)
    fraction = min(MEMORY_FRACTION * share, free - FREE_MARGIN)
    return round(max(0.01, fraction * (REDUCED_MEMORY_FRACTION if is_reduced else 1.0)), 3)


def sampling_arguments(request: GenerationRequest) -> dict[str, Any]:
    """Arguments of SamplingParams, without the output kind and the grammar."""
    arguments: dict[str, Any] = {
        # vLLM generates at least one token, which is dropped for a request that needs the scores of its prompt alone.
        "max_tokens": max(1, request.max_new_tokens),
        "temperature": request.temperature,
        "top_p": max(request.top_p, _LOWEST_TOP_P),
        "top_k": request.top_k,
        "min_p": request.min_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "repetition_penalty": request.repetition_penalty,
        # The request lists all stop tokens. A grammar is ended by the tokenizer's own end, whether the request lists it or not.
        "ignore_eos": not request.grammar,
        "stop_token_ids": [] if request.ignore_stop_tokens else list(request.stop_token_ids),
        "detokenize": False,
    }
    if request.seed is not None:
        # vLLM reads -1 as no seed.
        arguments["seed"] = request.seed % _SEEDS
    if request.logit_bias:
        arguments["logit_bias"] = dict(request.logit_bias)
    if request.logprobs is not None:
        arguments["logprobs"] = request.logprobs
    if request.prompt_logprobs is not None:
        arguments["prompt_logprobs"] = request.prompt_logprobs
    return arguments


def describe_logprobs(token: int, scores: Mapping[int, Any], top: int) -> TokenLogprobs:
    """One position of vLLM's log-probabilities: of ``token``, and of the ``top`` most likely ones."""
    likely = sorted(scores.items(), key=lambda item: item[1].rank)[:top]
    return token, _finite(scores[token].logprob), [(id, _finite(score.logprob)) for id, score in likely]


def describe_prompt(request: GenerationRequest, positions: Sequence[Mapping[int, Any] | None]) -> list[TokenLogprobs]:
    """The entries of a prompt that have not been delivered; ``positions`` has one for each of its tokens."""
    prompt = request.prompt[: len(request.prompt) - request.generated_tokens]
    top = request.prompt_logprobs or 0
    entries = []
    for token, scores in list(zip(prompt, positions, strict=False))[1 + request.scored_tokens :]:
        assert scores is not None
        entries.append(describe_logprobs(token, scores, top))
    return entries


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LOWEST_LOGPROB
