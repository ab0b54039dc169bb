"""Placement of models on simulated machines, and the errors for models that do not fit."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from cli.errors import CommandError
from cli.local.placement import Replica, models_to_load, place_models
from shared.models.catalogue import EMBED, Catalogue, ModelEntry
from workers.gpu.hardware.devices import GIB, Gpu, visible_indexes
from workers.gpu.hardware.memory_estimate import MemoryEstimate, estimate_memory, explain_shortage


def machine(*free: float, total: float = 80) -> list[Gpu]:
    """A machine with GPUs that have this many GiB of free memory."""
    return [
        Gpu(index=index, uuid=f"GPU-{index}", name="H100", memory_total=int(total * GIB), memory_free=int(room * GIB))
        for index, room in enumerate(free)
    ]


def model(name: str = "a", **fields: Any) -> ModelEntry:
    return ModelEntry(name=name, url="org/model", **fields)


def sized(**gibs: float) -> Any:
    """Memory estimates by model name, in GiB per GPU."""
    return lambda entry: MemoryEstimate(
        int(gibs.get(entry.name, 10) * GIB) * max(1, entry.gpus), 0, 0, max(1, entry.gpus), "weights"
    )


def test_a_model_without_gpus_runs_on_the_cpu() -> None:
    assert place_models([model()], [], sized()) == [Replica(0, "a")]


def test_a_model_on_a_server_needs_no_gpu() -> None:
    far = ModelEntry(name="far", url="http://host/v1", engine="openai", replicas=2)
    assert place_models([far], [], sized()) == [Replica(0, "far"), Replica(1, "far")]
    placed = place_models([far, model()], machine(70, 20), sized())
    assert placed == [Replica(2, "far"), Replica(3, "far"), Replica(0, "a", (0,)), Replica(1, "", (1,))]
    assert place_models([far], machine(70), sized()) == [Replica(1, "far"), Replica(2, "far"), Replica(0, "", (0,))]


def test_each_replica_on_the_cpu_is_a_worker() -> None:
    assert place_models([model("a", replicas=2), model("b")], [], sized()) == [Replica(0, "a"), Replica(1, "a"), Replica(2, "b")]


def test_a_model_is_placed_on_the_gpu_with_most_free_memory() -> None:
    placed = place_models([model()], machine(20, 70, 40), sized())
    assert placed == [Replica(1, "a", (1,)), Replica(0, "", (0,)), Replica(2, "", (2,))]


def test_each_replica_gets_its_own_gpu() -> None:
    placed = place_models([model(replicas=4)], machine(80, 80, 80, 80), sized())
    assert sorted(replica.devices for replica in placed) == [(0,), (1,), (2,), (3,)]
    assert {replica.model for replica in placed} == {"a"}


def test_devices_select_gpus_and_replicas() -> None:
    placed = place_models(
        [
            model("tp", gpus=2, devices=(3, 1, 0, 2)),
        ],
        machine(80, 80, 80, 80),
        sized(),
    )
    assert [replica.devices for replica in placed] == [(3, 1), (0, 2)]


def test_models_with_devices_then_large_models_are_placed_first() -> None:
    placed = place_models(
        [model("small"), model("large"), model("fixed", devices=(0,))], machine(80, 20, 60), sized(small=5, large=50)
    )
    assert {replica.model: replica.devices for replica in placed} == {"small": (1,), "large": (2,), "fixed": (0,)}


def test_a_gpu_is_shared_only_if_all_models_allow_it() -> None:
    half = {"gpu_share": 0.5}
    placed = place_models([model("a", **half), model("b", **half)], machine(80, 79), sized())
    assert placed == [Replica(0, "a", (0,)), Replica(2, "b", (0,)), Replica(1, "", (1,))]
    with pytest.raises(CommandError, match="only 0 of 1 are available"):
        place_models([model("a"), model("b", **half)], machine(80), sized())


@pytest.mark.parametrize(
    ("entries", "gpus", "words"),
    [
        ([model(gpus=1)], [], "needs 1 GPU, but this machine has no GPU"),
        ([model(devices=(0, 1))], [], "needs GPUs 0, 1, but this machine has no GPU"),
        ([model(devices=(4,))], machine(80), "has GPU 4 in its devices, but this machine has GPU 0"),
        ([model("a", devices=(0,)), model("b", devices=(0,))], machine(80, 80), "which another model uses"),
        ([model(gpus=2)], machine(80), "needs 2 GPUs per replica, but only 1 of 1 is available"),
        ([model(replicas=3)], machine(80, 80), "only 0 of 2 are available"),
        ([model("big")], machine(80), "big needs 90.0 GiB: weights; GPU 0 (H100) has 80.0 GiB free of 80.0 GiB"),
        ([model("big", gpus=2)], machine(80, 95, total=96), "90.0 GiB on each of 2 GPUs"),
        ([model("half", gpu_share=0.5)], machine(80), "has 40.0 GiB free at gpu_share 0.5"),
    ],
)
def test_impossible_placements_are_rejected_with_the_reason(entries: list[ModelEntry], gpus: list[Gpu], words: str) -> None:
    with pytest.raises(CommandError) as refused:
        place_models(entries, gpus, sized(big=90, half=50))
    assert words in str(refused.value)


def test_models_to_load() -> None:
    every = Catalogue((model("a"), model("b", default=True), model("c", load=True), model("v", task=EMBED, load=True)))
    assert [entry.name for entry in models_to_load(every, [])] == ["c"]
    assert [entry.name for entry in models_to_load(every, ["b", "a"])] == ["b", "a"]
    assert [entry.name for entry in models_to_load(Catalogue(every.models[:2]), [])] == ["b"]
    for names, words in ((["x"], "no model 'x'"), (["v"], "cannot generate text"), (["a", "a"], "given twice")):
        with pytest.raises(CommandError, match=words):
            models_to_load(every, names)


def weights(folder: Path, *, dtype: str = "BF16", numbers: int = 1000, **config: Any) -> Path:
    """A model folder with one tensor and, by default, the shape of Llama 3.1 8B."""
    folder.mkdir(exist_ok=True)
    header = json.dumps({"w": {"dtype": dtype, "shape": [numbers, 2], "data_offsets": [0, 0]}, "__metadata__": {}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "tokenizer.json").write_text("{}")
    shape = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    (folder / "config.json").write_text(json.dumps({**shape, "dtype": "bfloat16", "max_position_embeddings": 8192, **config}))
    return folder


def test_memory_is_estimated_from_the_weight_files(tmp_path: Path) -> None:
    folder = str(weights(tmp_path / "m", numbers=GIB))
    need = estimate_memory(ModelEntry(name="a", url=folder, max_in_flight=4), tmp_path)
    assert need.weights == 4 * GIB, "two numbers a row of two bytes each"
    assert need.cache == 8192 * 128 * 1024, (
        "one request as long as the context; a token has 2 x 32 layers x 8 heads x 128 x 2 bytes"
    )
    assert need.per_gpu == 4 * GIB + GIB + GIB
    assert "2,147,483,648 parameters in bfloat16" in need.breakdown
    assert "8,192 tokens of 128 KiB" in need.breakdown


def test_more_requests_in_flight_need_more_cache(tmp_path: Path) -> None:
    folder = str(weights(tmp_path / "m"))
    assert estimate_memory(ModelEntry(name="a", url=folder, max_in_flight=64), tmp_path).cache == 64 * 1024 * 128 * 1024


def test_dtype_and_quantization_change_the_estimate(tmp_path: Path) -> None:
    folder = weights(tmp_path / "m", numbers=GIB)
    assert estimate_memory(ModelEntry(name="a", url=str(folder), dtype="float32"), tmp_path).weights == 8 * GIB
    packed = weights(tmp_path / "q", dtype="U8", text_config={"num_hidden_layers": 1})
    need = estimate_memory(ModelEntry(name="q", url=str(packed)), tmp_path)
    assert need.weights == (packed / "model.safetensors").stat().st_size
    assert need.cache == 16 * 1024 * 4096


def test_a_missing_model_is_estimated_from_its_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    need = estimate_memory(ModelEntry(name="a", url="org/not-here", parameters=GIB), tmp_path)
    assert (need.weights, need.cache) == (2 * GIB, 0)
    unknown = estimate_memory(ModelEntry(name="a", url="org/not-here"), tmp_path)
    assert "unknown size" in unknown.breakdown
    assert not explain_shortage(ModelEntry(name="a", url="org/not-here"), unknown, machine(2))


def test_an_echo_model_needs_no_memory(tmp_path: Path) -> None:
    assert estimate_memory(ModelEntry(name="e", url="echo:0", engine="echo"), tmp_path).per_gpu == 0


def test_cuda_visible_devices_selects_gpus() -> None:
    uuids = ["GPU-aaa", "GPU-bbb", "GPU-ccc"]
    assert visible_indexes(None, uuids) == [0, 1, 2]
    assert visible_indexes("2,0", uuids) == [2, 0]
    assert visible_indexes("GPU-b", uuids) == [1]
    assert visible_indexes("1,7,0", uuids) == [1]
    assert visible_indexes("", uuids) == []


def test_memory_alarms_are_raised_for_use_beyond_that_of_the_engine() -> None:
    assert [gpu.alarm(None) for gpu in machine(17, 16, 8, 7.9)] == ["", "warning", "critical", "critical"]
    left = 2 * GIB
    assert [gpu.alarm(left) for gpu in machine(17, 2, 1.1, 1, 0.5)] == ["", "", "", "warning", "critical"]
