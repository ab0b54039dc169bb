"""Out-of-memory detection, and the cache of an engine that shares its GPU."""

import pytest

from shared.errors import ModelUnavailable
from workers.gpu.engine.memory import cache_bytes, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16777216 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_out_of_memory_is_detected_from_the_message_of_an_error_or_its_cause(error: Exception) -> None:
    assert is_out_of_memory(error)
    wrapped = ValueError("the loop has died")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


def test_other_errors_are_not_out_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("a prompt about being out of memory"))
    assert not is_out_of_memory(None)


def test_the_cache_of_a_shared_gpu_keeps_the_engine_within_its_share() -> None:
    total, weights, step = 80, 15, 3
    assert cache_bytes(0.5, total, 65, weights, step) + weights + step == 40
    assert cache_bytes(1.0, total, 60, weights, step) == 57, "no more than is free"
    with pytest.raises(ModelUnavailable, match=r"gpu_share 0\.2 of .* leaves no memory for the KV cache"):
        cache_bytes(0.2, total, 65, weights, step)
