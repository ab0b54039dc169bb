"""Baseline of ``generation_throughput.py``: the continuous batching of transformers alone, with the sizes of our engine.

Reads a request (JSON) on standard input, prints tokens per second.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

from shared.models.catalogue import load_catalogue
from workers.gpu.engine.cache_size import CPU_STEP_TOKENS, PAGE_TOKENS
from workers.gpu.hardware.memory_estimate import TOKENS_IN_FLIGHT


def main() -> None:
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    entry = load_catalogue(Path(request["models_file"])).get_model(folder.name)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = entry.dtype if entry.dtype == "auto" else getattr(torch, entry.dtype)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map=device, attn_implementation="sdpa")
    in_flight = entry.max_in_flight
    context = entry.max_context or int(model.config.get_text_config().max_position_embeddings)
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=-(-max(context, in_flight * min(context, TOKENS_IN_FLIGHT)) // PAGE_TOKENS) + in_flight,
            max_batch_tokens=CPU_STEP_TOKENS,
            max_requests_per_batch=in_flight,
            max_blocks_per_request=-(-context // PAGE_TOKENS),
            auto_switch_to_flash=False,
        ),
    )
    manager.warmup()
    manager.start()
    prompts = [tokenizer.encode(prompt) for prompt in request["prompts"]]
    ends = [id for id in {tokenizer.eos_token_id, model.generation_config.eos_token_id} if isinstance(id, int)]
    run_prompts(manager, prompts[:1], 2, ends)
    start = time.perf_counter()
    tokens = run_prompts(manager, prompts, request["tokens"], ends)
    seconds = time.perf_counter() - start
    manager.stop(block=True)
    print(json.dumps({"tokens_per_second": tokens / seconds, "tokens": tokens}))


def run_prompts(manager: Any, prompts: list[list[int]], tokens: int, ends: list[int]) -> int:
    """Run all prompts at once to their end; returns the number of output tokens."""
    for number, prompt in enumerate(prompts):
        manager.add_request(prompt, request_id=f"{number}", max_new_tokens=tokens, eos_token_id=ends)
    total = ended = 0
    while ended < len(prompts):
        output = manager.get_result(timeout=600)
        if output is not None and output.is_finished():
            ended += 1
            total += len(output.generated_tokens)
    return total


if __name__ == "__main__":
    main()
