"""Speed on a CPU: float32 where the CPU is slow in half precision, and the form of the output layer."""

import pytest
import torch

from workers.gpu.engine.cpu_speed import measure_product, multiply_transposed, use_fast_head, use_fast_precision


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


@pytest.mark.parametrize("shape", [(1, 16), (7, 16), (1, 1, 16), (1, 5, 16), (2, 3, 16)])
def test_both_forms_of_the_output_layer_are_equal(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(shape, generator=generator), torch.randn(40, 16, generator=generator)
    transposed = multiply_transposed(hidden, weight)
    torch.testing.assert_close(transposed, torch.nn.functional.linear(hidden, weight))
    assert transposed.is_contiguous()


class WithHead(torch.nn.Module):
    def __init__(self, vocabulary: int, *, bias: bool = False) -> None:
        super().__init__()
        self.head = torch.nn.Linear(8, vocabulary, bias=bias)

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.head


@pytest.mark.parametrize(("vocabulary", "bias"), [(40_000, False), (40_000, True), (100, False)])
def test_whatever_form_is_chosen_the_output_layer_computes_the_same(vocabulary: int, bias: bool) -> None:
    model = WithHead(vocabulary, bias=bias)
    hidden = torch.randn(3, 8, generator=torch.Generator().manual_seed(4))
    expected = model.head(hidden)
    use_fast_head(model)
    torch.testing.assert_close(model.head(hidden), expected)
