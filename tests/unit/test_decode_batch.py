"""Decode batch and padded sizes: rows, their place in a step's output, and rows that are used again."""

from workers.gpu.engine.decode_batch import DecodeBatch, DecodeRequest
from workers.gpu.engine.graph_sizes import GraphSizes

SPARE = 7


def request(id: str, new: int = 5, stops: tuple[int, ...] = (), length: int = 3) -> DecodeRequest:
    return DecodeRequest(id, length, new, (0, 0, 0, 0), frozenset(stops))


def test_a_request_is_decoded_once_for_each_token_after_its_first() -> None:
    batch = DecodeBatch(4, 2, SPARE)
    row = batch.add_row(request("a", new=3), [1])
    assert len(batch) == 1
    assert batch.advance().tolist() == [row]
    assert batch.position[row] == 4
    assert batch.advance().tolist() == [row]
    assert len(batch) == 0


def test_a_request_for_one_token_is_never_decoded() -> None:
    batch = DecodeBatch(4, 2, SPARE)
    batch.add_row(request("a", new=1), [1])
    assert len(batch) == 0
    assert batch.remove_request("a")
    assert batch.free_rows == 4


def test_decoded_rows_know_their_index_in_the_output() -> None:
    batch = DecodeBatch(4, 2, SPARE)
    first, second, third = (batch.add_row(request(id), [1]) for id in "abc")
    batch.remove_request("b")
    batch.advance()
    assert batch.output_index[first] == 0
    assert batch.output_index[third] == 1
    assert batch.output_index[second] == -1


def test_a_reused_row_has_a_new_serial_and_its_own_pages() -> None:
    batch = DecodeBatch(1, 3, SPARE)
    row = batch.add_row(request("a"), [1, 2, 3])
    before = int(batch.serial[row])
    batch.remove_request("a")
    assert batch.add_row(request("b"), [9]) == row
    assert int(batch.serial[row]) != before
    assert batch.block_table[row].tolist() == [9, SPARE, SPARE]
    batch.set_pages("b", [4])
    assert batch.block_table[row].tolist() == [4, SPARE, SPARE]
    assert not batch.remove_request("a")


def test_stop_tokens_are_those_of_the_current_rows() -> None:
    batch = DecodeBatch(2, 1, SPARE)
    batch.add_row(request("a", stops=(5, 6)), [1])
    batch.add_row(request("b", stops=(6,)), [1])
    assert sorted(batch.stop_token_ids) == [5, 6]
    batch.remove_request("a")
    assert batch.stop_token_ids == [6]


def test_a_step_is_padded_to_the_next_size_and_never_beyond_the_maximum() -> None:
    sizes = GraphSizes(700, 20)
    assert [sizes.pad_prefill(tokens) for tokens in (1, 64, 65, 600, 641, 700)] == [64, 64, 128, 640, 700, 700]
    assert [sizes.pad_decode(requests) for requests in (1, 3, 9, 17, 20)] == [1, 4, 16, 20, 20]


def test_sizes_end_with_the_maximum_and_are_in_ascending_order() -> None:
    for max_tokens, max_requests in ((64, 1), (512, 8), (8192, 1024)):
        sizes = GraphSizes(max_tokens, max_requests)
        assert sizes.prefill[-1] == max_tokens
        assert sizes.decode[-1] == max_requests
        assert list(sizes.prefill) == sorted(set(sizes.prefill))
        assert list(sizes.decode) == sorted(set(sizes.decode))
