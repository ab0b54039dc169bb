"""Precision on a CPU: float32 where the CPU is slow in half precision."""

import pytest
import torch

from workers.gpu.engine.cpu_precision import measure_product, use_fast_precision


class Tied(torch.nn.Module):
    """A model whose output layer shares the weights of its input layer."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(8, 4, dtype=dtype)
        self.head = torch.nn.Linear(4, 8, bias=False, dtype=dtype)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_cpu_that_is_slow_in_half_precision_computes_in_float32(half: torch.dtype) -> None:
    model = Tied(half)
    before = model.embedding.weight.detach().clone()
    use_fast_precision(model, "tied", measure={half: 0.006, torch.float32: 0.001}.__getitem__)
    assert model.embedding.weight.dtype == torch.float32
    assert torch.equal(model.embedding.weight, before.float())
    assert model.head.weight is model.embedding.weight


def test_a_cpu_that_is_fast_in_half_precision_keeps_it() -> None:
    model = Tied(torch.bfloat16)
    use_fast_precision(model, "tied", measure={torch.bfloat16: 0.001, torch.float32: 0.002}.__getitem__)
    assert model.embedding.weight.dtype == torch.bfloat16


def test_float32_is_not_measured() -> None:
    model = Tied(torch.float32)
    use_fast_precision(model, "tied", measure={}.__getitem__)
    assert model.embedding.weight.dtype == torch.float32


def test_a_model_that_would_not_fit_keeps_half_precision(caplog: pytest.LogCaptureFixture) -> None:
    model = Tied(torch.bfloat16)
    use_fast_precision(model, "tied", measure={torch.bfloat16: 0.006, torch.float32: 0.001}.__getitem__, free_memory=64)
    assert model.embedding.weight.dtype == torch.bfloat16
    assert "too little free memory" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_product_is_measured(dtype: torch.dtype) -> None:
    assert 0 < measure_product(dtype) < 10
