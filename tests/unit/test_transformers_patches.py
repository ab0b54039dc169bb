"""Internals of transformers that the engine depends on: each must exist, with the signature that our code expects."""

import inspect
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from workers.gpu.engine.sampling import GREEDY, encode_sampling
from workers.gpu.engine.transformers_patches import SAMPLING_KEY, GraphBuffer, SamplingProcessors

BATCHING = "transformers.generation.continuous_batching."

# Methods that we replace, or call although they are private or undocumented, with their parameters.
METHODS = {
    "continuous_api.ContinuousBatchingManager._create_batch_processor": "self",
    "continuous_api.ContinuousBatchingManager.add_request": (
        "self input_ids request_id max_new_tokens streaming record_timestamps eos_token_id logit_processor_kwargs"
    ),
    "continuous_api.ContinuousBatchingManager.cancel_request": "self request_id",
    "continuous_api.ContinuousBatchingManager.is_running": "self",
    "continuous_api.ContinuousBatchingManager.pause": "self",
    "continuous_api.ContinuousBatchProcessor.prepare_next_batch": "self",
    "continuous_api.ContinuousBatchProcessor.update_batch": "self",
    "continuous_api.ContinuousBatchProcessor._generation_step": "self model",
    "continuous_api.ContinuousBatchProcessor._update_tp_group_state": "self",
    "continuous_api.OutputRouter.deliver": "self output",
    "continuous_api.OutputRouter.deliver_batch": "self outputs",
    "model_runner.ModelRunner._sample": "self scores output_ids",
    "model_runner.ModelRunner._get_forward_fn": "self use_block_table",
    "cache.PagedAttentionCache.update": "self key_states value_states layer_idx kwargs",
    "cache.PagedAttentionCache.mark_complete_blocks": "self state complete_blocks",
    "cache.PagedAttentionCache.can_store_request_tokens": "self state request_len dry_run",
    "cache.PagedAttentionCache.free_blocks": "self request_id no_cache",
    "cache.PagedAttentionCache.evict_cached_blocks": "self",
    "cache.PagedAttentionCache.compute_free_capacity": "self relative",
    "cache.group_layers_by_attn_type": "config",
    "cache_allocators.cache_allocator.CacheAllocator.get_cache_for_block_table": "self layer_idx",
    "cache_allocators.cache_allocator.CacheAllocator.needs_new_blocks": "self request_id past_length query_length",
    "cache_allocators.cache_allocator.CacheAllocator.mark_complete_blocks": "self request_id token_ids new_new_blocks",
    "cache_allocators.cache_pool.CachePool.free_blocks": "self index block_ids",
    "cache_allocators.cache_pool.CachePool.try_to_free_sectors": "self",
    "cb_logits_processors.ContinuousBatchingLogitsProcessorList.fill_defaults": "self int32_tensor",
    "cb_logits_processors.ContinuousBatchingLogitsProcessorList.prepare_tensor_args": "self requests_in_batch arg_storage",
    "cb_logits_processors.ContinuousBatchingLogitsProcessorList.__call__": "self input_ids scores logits_processor_args",
    "input_outputs.ContinuousBatchingIOs.carry_over_tokens": "self input_ids carry_over_ids prev_output_ids",
    "input_outputs.ContinuousBatchingIOs.prepare_batch_tensors": (
        "self requests_in_batch logits_processors use_decode_fast_path num_q_tokens max_kv_read use_padding"
    ),
    "input_outputs.ContinuousBatchingAsyncIOs.swap_io_pairs": "self",
    "offloading_manager.OffloadingManager.offload_requests": "self",
    "offloading_manager.OffloadingManager.free_request_cpu_cache": "self state",
    "scheduler.Scheduler._process_candidates": "self candidates token_budget cache_budget request_ids_to_remove_from_waiting",
    "scheduler.Scheduler._cleanup_waiting_queue": "self request_ids_to_remove_from_waiting",
    "scheduler.Scheduler.clear_cancelled_requests": "self",
    "scheduler.Scheduler.finish_request": "self request_id",
    "scheduler.Scheduler.set_request_cancellation": "self request_id",
    "utils.CudaGraphBuffer.get_graph": "self key",
    "utils.CudaGraphBuffer.set_graph": "self key graph",
}

# Attributes that our code reads or sets, which the named class assigns or declares.
ATTRIBUTES = {
    "continuous_api.ContinuousBatchingManager": "logit_processor output_router batch_processor background_thread_status "
    "_generation_thread current_batch continuous_batching_config",
    "continuous_api.ContinuousBatchProcessor": "cache scheduler inputs_and_outputs model_runner offloading_manager cb_config",
    "model_runner.ModelRunner": "pad_inputs",
    "cache.PagedAttentionCache": "cache_allocators layer_to_allocator max_batch_tokens max_tokens_read max_blocks_per_request "
    "num_sectors pool use_prefix_sharing",
    "cache_allocators.cache_allocator.CacheAllocator": "block_table block_physical_stride tokens_per_page write_trash_index "
    "ledger index blocks_per_sector",
    "cache_allocators.full_attention.FullAttentionCacheAllocator": "_copy_view",
    "cache_allocators.cache_allocator.BlockLedger": "cached_blocks hash_to_block block_to_hash",
    "input_outputs.ContinuousBatchingIOs": "_bulk_input_tensor static_inputs carry_over_ids output_ids block_table "
    "write_index_storage compute_stream graphs",
    "input_outputs.ContinuousBatchingAsyncIOs": "io_pairs current_pair",
    "input_outputs.HostDeviceIOPair": "host_io device_io d2h_over",
    "scheduler.Scheduler": "active_requests waiting_requests waiting_requests_order",
    "requests.RequestState": "_eos_token_ids remaining_prefill_tokens position_offset generated_tokens initial_tokens "
    "logit_processor_kwargs max_new_tokens",
}


def resolve(path: str) -> Any:
    """The object at a path of modules and attributes below the continuous-batching package."""
    module, *names = path.split(".")
    found = import_module(BATCHING + module)
    for name in names:
        found = getattr(found, name) if hasattr(found, name) else import_module(f"{found.__name__}.{name}")
    return found


def test_the_exact_version_is_pinned() -> None:
    version = metadata.version("transformers")
    root = Path(__file__).parents[2]
    assert f'"transformers=={version}"' in (root / "pyproject.toml").read_text()
    assert f"\ntransformers=={version}\n" in (root / "constraints.txt").read_text()


@pytest.mark.parametrize("path", METHODS)
def test_a_method_has_the_parameters_that_we_rely_on(path: str) -> None:
    assert list(inspect.signature(resolve(path)).parameters) == METHODS[path].split()


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in ATTRIBUTES.items() for name in names.split()])
def test_an_attribute_that_we_rely_on_exists(path: str, name: str) -> None:
    owner = resolve(path)
    sources = [inspect.getsource(cls) for cls in owner.__mro__ if cls.__module__.startswith(BATCHING)]
    assert hasattr(owner, name) or any(f"self.{name}" in source or f"    {name}:" in source for source in sources)


def test_models_announce_whether_they_support_flash_attention() -> None:
    assert isinstance(import_module("transformers").LlamaForCausalLM._supports_flash_attn, bool)


def test_the_compiler_has_the_option_that_keeps_layers_from_recompiling() -> None:
    assert isinstance(import_module("torch._dynamo.config").allow_unspec_int_on_nn_module, bool)


def prepared(samplings: list[Any], positions: list[int]) -> tuple[SamplingProcessors, Any]:
    """Processors that are about to run a step, and what they pass to the device for it."""
    processors = SamplingProcessors()
    batch = [
        SimpleNamespace(
            has_new_token=True, state=SimpleNamespace(logit_processor_kwargs={SAMPLING_KEY: sampling}, position_offset=position)
        )
        for sampling, position in zip(samplings, positions, strict=True)
    ]
    storage = torch.zeros((processors.tensors_required, len(batch) + 3), dtype=torch.int32)
    processors.prepare_tensor_args(batch, storage)
    return processors, storage


def test_a_greedy_step_is_known_beforehand_and_leaves_the_scores_unchanged() -> None:
    processors, storage = prepared([GREEDY, GREEDY], [3, 4])
    scores = torch.randn(2, 50)
    assert not processors.is_sampling
    assert processors(torch.zeros(0), scores, storage) is scores
    processors, storage = prepared([GREEDY, encode_sampling(0.7, 0.9, 0, 2)], [3, 4])
    assert processors.is_sampling
    processed = processors(torch.zeros(0), scores.clone(), storage)
    assert torch.equal(processed[0], scores[0])
    assert int((processed[1] > -torch.inf).sum()) == 1


def test_graphs_of_sampling_and_greedy_steps_are_separate() -> None:
    processors = SamplingProcessors()
    graphs = GraphBuffer(processors)
    greedy, sampling = SimpleNamespace(reset=lambda: None), SimpleNamespace(reset=lambda: None)
    graphs.set_graph((64, 0), greedy)
    processors.is_sampling = True
    assert graphs.get_graph((64, 0)) is None
    graphs.set_graph((64, 0), sampling)
    assert graphs.get_graph((64, 0)) is sampling
    processors.is_sampling = False
    assert graphs.get_graph((64, 0)) is greedy
