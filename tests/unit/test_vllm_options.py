"""What vLLM is started with and asked for: an entry and a request as its arguments, and its scores as ours."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.messages import LOWEST_LOGPROB, GenerationRequest
from workers.gpu.engine.vllm_options import (
    describe_logprobs,
    describe_prompt,
    engine_arguments,
    memory_fraction,
    read_adapter_rank,
    sampling_arguments,
)
from workers.gpu.engine.vllm_probe import ENGINE_ARGUMENTS, SAMPLING_ARGUMENTS
from workers.gpu.hardware.devices import GIB, Gpu

FOLDER = Path("/models/m")


@dataclass
class Score:
    """As vLLM's Logprob."""

    logprob: float
    rank: int


def entry(**fields: Any) -> ModelEntry:
    return ModelEntry(name="m", url=str(FOLDER), engine="vllm", **fields)


def gpu(total: int = 80, free: int = 80) -> Gpu:
    return Gpu(index=0, uuid="GPU-0", name="H", memory_total=total * GIB, memory_free=free * GIB)


def request(**fields: Any) -> GenerationRequest:
    return GenerationRequest("r", [1, 2, 3], fields.pop("max_new_tokens", 5), fields.pop("stop_token_ids", [9]), **fields)


def test_fields_of_the_entry_become_arguments_of_vllm() -> None:
    arguments = engine_arguments(
        entry(
            dtype="bfloat16",
            max_context=4096,
            max_in_flight=64,
            gpus=4,
            engine_args={"pipeline_parallel_size": 2, "quantization": "fp8"},
        ),
        FOLDER,
        64,
        [gpu()] * 4,
    )
    assert arguments["model"] == arguments["tokenizer"] == str(FOLDER)
    assert (arguments["dtype"], arguments["max_model_len"], arguments["max_num_seqs"]) == ("bfloat16", 4096, 64)
    # Two stages of two GPUs each.
    assert (arguments["tensor_parallel_size"], arguments["pipeline_parallel_size"]) == (2, 2)
    assert arguments["quantization"] == "fp8"
    assert arguments["max_num_batched_tokens"] == 8192


def test_a_context_that_the_entry_leaves_open_is_what_fits_into_memory() -> None:
    assert engine_arguments(entry(), FOLDER, 16, [])["max_model_len"] == -1


def test_an_argument_of_the_entry_replaces_a_default() -> None:
    assert (
        engine_arguments(entry(engine_args={"max_num_batched_tokens": 4096}), FOLDER, 16, [gpu()])["max_num_batched_tokens"]
        == 4096
    )


@pytest.mark.parametrize(
    ("share", "gpus", "is_reduced", "fraction"),
    [
        (1.0, [gpu()], False, 0.88),
        (0.5, [gpu()], False, 0.44),
        # Another process holds memory: vLLM would refuse to start with more than what is free.
        (1.0, [gpu(), gpu(free=40)], False, 0.48),
        (1.0, [gpu()], True, 0.704),
    ],
)
def test_the_memory_fraction_keeps_within_the_share_and_what_is_free(
    share: float, gpus: list[Gpu], is_reduced: bool, fraction: float
) -> None:
    assert memory_fraction(share, gpus, is_reduced=is_reduced) == fraction


def test_arguments_that_are_used_are_those_that_the_probe_looks_for() -> None:
    everything = request(seed=1, logit_bias=[(1, 2.0)], logprobs=0, prompt_logprobs=0)
    assert sampling_arguments(everything).keys() | {"output_kind", "structured_outputs"} == set(SAMPLING_ARGUMENTS)
    used = engine_arguments(entry(engine_args={"pipeline_parallel_size": 1}), FOLDER, 16, [gpu()], adapter_ranks=[8]).keys()
    assert used | {"structured_outputs_config"} == set(ENGINE_ARGUMENTS)


def test_stop_tokens_are_those_of_the_request_alone() -> None:
    assert sampling_arguments(request())["stop_token_ids"] == [9]
    # The request lists the model's own ends, so vLLM adds none.
    assert sampling_arguments(request())["ignore_eos"]
    assert sampling_arguments(request(ignore_stop_tokens=True))["stop_token_ids"] == []
    # Where a grammar may end, llguidance allows the tokenizer's end alone.
    assert not sampling_arguments(request(grammar="start: /a/"))["ignore_eos"]


def test_values_that_vllm_does_not_take_are_replaced_by_their_like() -> None:
    assert 0 < sampling_arguments(request(top_p=0.0))["top_p"] < 1e-4
    assert sampling_arguments(request(max_new_tokens=0, prompt_logprobs=0))["max_tokens"] == 1
    # vLLM reads a seed of -1 as none.
    assert sampling_arguments(request(seed=-1))["seed"] == 2**63 - 1
    assert "seed" not in sampling_arguments(request())


def test_scores_have_the_chosen_token_and_the_most_likely_ones_in_order() -> None:
    scores = {5: Score(-3.0, 7), 1: Score(-0.1, 1), 2: Score(float("-inf"), 2)}
    assert describe_logprobs(5, scores, 2) == (5, -3.0, [(1, -0.1), (2, LOWEST_LOGPROB)])
    assert describe_logprobs(1, {1: Score(-0.1, 1)}, 0) == (1, -0.1, [])


def test_scores_of_a_prompt_begin_with_its_second_token_and_leave_out_what_was_delivered() -> None:
    positions = [None, *({token: Score(-float(token), 1)} for token in (2, 3, 4, 5))]
    scored = GenerationRequest("r", [1, 2, 3, 4, 5], 1, [], prompt_logprobs=0, scored_tokens=1, generated_tokens=1)
    assert describe_prompt(scored, positions) == [(3, -3.0, []), (4, -4.0, [])]


def test_adapters_get_room_for_the_largest_rank_and_a_few_at_once() -> None:
    arguments = engine_arguments(entry(), FOLDER, 16, [gpu()], adapter_ranks=[4, 24] + [8] * 18)
    assert arguments["enable_lora"] is True
    assert (arguments["max_lora_rank"], arguments["max_loras"], arguments["max_cpu_loras"]) == (32, 8, 20)
    assert "enable_lora" not in engine_arguments(entry(), FOLDER, 16, [gpu()])
    own = engine_arguments(entry(engine_args={"max_loras": 2}), FOLDER, 16, [gpu()], adapter_ranks=[8] * 4)
    assert own["max_loras"] == 2
    with pytest.raises(ModelUnavailable, match="rank 1024"):
        engine_arguments(entry(), FOLDER, 16, [gpu()], adapter_ranks=[1024])


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        ({"peft_type": "LORA", "r": 8}, 8),
        ({"peft_type": "LORA", "r": 8, "rank_pattern": {"q_proj": 64}}, 64),
        ({"peft_type": "LOHA", "r": 8}, None),
        ({"peft_type": "LORA"}, None),
    ],
)
def test_the_rank_of_an_adapter_is_that_of_its_largest_matrix(tmp_path: Path, config: dict[str, Any], rank: int | None) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    if rank is None:
        with pytest.raises(ModelUnavailable, match="LoRA adapters only"):
            read_adapter_rank(tmp_path)
    else:
        assert read_adapter_rank(tmp_path) == rank
