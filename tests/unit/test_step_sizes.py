"""Padded sizes of steps: each step fits, and each size has a graph."""

import pytest

from workers.gpu.engine.step_sizes import StepSizes


@pytest.mark.parametrize(("max_tokens", "max_requests"), [(65, 1), (576, 512), (2048, 16), (2048, 512), (1088, 1024)])
def test_every_step_has_a_size_that_fits_and_has_a_graph(max_tokens: int, max_requests: int) -> None:
    sizes = StepSizes(max_tokens, max_requests)
    graphs = list(sizes.all())
    assert len(set(graphs)) == len(graphs)
    for tokens in {1, 2, 15, 16, 17, 300, max_tokens} & set(range(max_tokens + 1)):
        for requests in {1, 2, 16, 63, max_requests} & set(range(1, min(tokens, max_requests) + 1)):
            padded_tokens, padded_requests = sizes.pad(tokens, requests)
            assert (padded_tokens, padded_requests) in graphs
            assert tokens <= padded_tokens
            if tokens == requests:
                assert padded_tokens == padded_requests
                continue
            assert requests < padded_requests < padded_tokens


def test_larger_sizes_come_first_and_decode_sizes_are_close() -> None:
    sizes = StepSizes(2048, 512)
    assert next(sizes.all()) == (2048, 513)
    assert [sizes.pad(count, count)[0] for count in (1, 3, 9, 17, 130, 500)] == [1, 4, 16, 32, 160, 512]
