"""Detokenization: tokens become the same text however they are split into calls."""

from collections.abc import Sequence
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.models.catalogue import ECHO, ModelEntry
from workers.control_texts import ControlTexts
from workers.gpu.byte_tokenizer import ByteTokenizer
from workers.gpu.detokenizer import BROKEN, Detokenizer
from workers.gpu.tokenization import TextCodec

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[BROKEN]))


@st.composite
def tokens_in_pieces(draw: st.DrawFn, source: st.SearchStrategy[str] = texts) -> tuple[str, list[list[int]]]:
    text = draw(source)
    ids = ByteTokenizer().encode(text)
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=8)))
    return text, [ids[start:end] for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)]


def detokenize(detokenizer: Detokenizer, pieces: list[list[int]]) -> list[str]:
    return [detokenizer.add_tokens(piece)[0] for piece in pieces] + [detokenizer.flush()]


@given(tokens_in_pieces())
def test_any_split_of_the_tokens_gives_the_same_text(case: tuple[str, list[list[int]]]) -> None:
    text, pieces = case
    pieces_of_text = detokenize(Detokenizer(ByteTokenizer().decode), pieces)
    assert "".join(pieces_of_text) == text
    assert not any(BROKEN in piece for piece in pieces_of_text)


@given(tokens_in_pieces(st.text("ab\n", max_size=40)), st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_text_is_removed_however_it_is_split(case: tuple[str, list[list[int]]], stops: list[str]) -> None:
    text, pieces = case
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    detokenizer = Detokenizer(ByteTokenizer().decode, stops)
    assert "".join(detokenize(detokenizer, pieces)) == (text[: min(ends)[1]] if ends else text)
    assert detokenizer.stopped == bool(ends)


@given(tokens_in_pieces(), st.text(min_size=1, max_size=3))
def test_no_piece_has_a_stop_text_or_what_follows_it(case: tuple[str, list[list[int]]], stop: str) -> None:
    text, pieces = case
    assert stop not in "".join(detokenize(Detokenizer(ByteTokenizer().decode, [stop]), pieces)) or stop not in text


def decode_with_fallback(ids: Sequence[int]) -> str:
    """Like a decoder that falls back to bytes: a run of bytes that is no text is broken as a whole, and a text has no space at its start."""
    pieces: list[str] = []
    for is_byte, run in groupby(ids, lambda id: id < 256):
        if not is_byte:
            pieces += (f" word{id}" for id in run)
            continue
        data = bytes(run)
        try:
            pieces.append(data.decode())
        except UnicodeDecodeError:
            pieces.append(BROKEN * len(data))
    return "".join(pieces).removeprefix(" ")


@given(
    st.lists(st.one_of(st.integers(256, 300).map(lambda id: [id]), st.sampled_from("é中😀").map(lambda c: [*c.encode()]))),
    st.data(),
)
def test_what_is_decoded_does_not_depend_on_how_much_came_before(characters: list[list[int]], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(characters)), max_size=3)))
    batches = [characters[start:end] for start, end in zip([0, *cuts], [*cuts, len(characters)], strict=True)]
    detokenizer = Detokenizer(decode_with_fallback)
    pieces = [detokenizer.add_tokens([id for character in batch for id in character])[0] for batch in batches]
    assert "".join(pieces) + detokenizer.flush() == decode_with_fallback([id for character in characters for id in character])


def test_an_incomplete_character_is_held_back() -> None:
    detokenizer = Detokenizer(ByteTokenizer().decode)
    first, second = "é".encode()
    assert detokenizer.add_tokens([first]) == ("", False)
    assert detokenizer.add_tokens([second]) == ("é", False)


def test_an_incomplete_character_at_the_end_is_dropped() -> None:
    detokenizer = Detokenizer(ByteTokenizer().decode)
    assert detokenizer.add_tokens([*b"caf", "é".encode()[0]])[0] + detokenizer.flush() == "caf"


def test_a_possible_stop_text_is_held_back() -> None:
    detokenizer = Detokenizer(ByteTokenizer().decode, ["\nQ:"])
    assert detokenizer.add_tokens([*b"yes\nQ"]) == ("yes", False)
    assert detokenizer.add_tokens([*b"uite"]) == ("\nQuite", False)
    assert detokenizer.add_tokens([*b"\nQ"])[0] + detokenizer.flush() == "\nQ"


def test_a_stop_text_ends_the_output() -> None:
    detokenizer = Detokenizer(ByteTokenizer().decode, ["."])
    assert detokenizer.add_tokens([*b"one. two."]) == ("one", True)
    assert detokenizer.add_tokens([*b"three"]) == ("", True)
    assert detokenizer.flush() == ""


def test_a_chat_answer_starts_with_its_first_word() -> None:
    detokenizer = Detokenizer(ByteTokenizer().decode, ["\n\n"], drop_leading_space=True)
    assert detokenizer.add_tokens([*b"\n\n "]) == ("", False)
    assert detokenizer.add_tokens([*b" Paris is"]) == ("Paris is", False)
    assert detokenizer.add_tokens([*b"\n\nQ"]) == ("", True)


def test_invalid_bytes_do_not_hold_back_the_text_forever() -> None:
    detokenizer = Detokenizer(ByteTokenizer().decode)
    assert BROKEN in detokenizer.add_tokens([0xFF] * 100)[0]


def test_the_echo_engine_needs_no_model_folder() -> None:
    text = TextCodec(ModelEntry(name="echo", url="echo:", engine=ECHO, stop=("END",)))
    assert text.encode_prompt("hé") == [*"hé".encode()]
    assert text.count_tokens("hé") == 3
    assert bytes(text.encode_messages([{"role": "user", "content": "hi"}])) == b"user: hi\n"
    assert text.make_detokenizer(["X"]).add_tokens([*b"aENDb"]) == ("a", True)
    assert text.stop_token_ids == ()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain < text", ["plain < text"]),
        ("", [""]),
        ("a<eos>b", ["a", "<eos>", "b"]),
        ("<eos><eos>", ["", "<eos>", "", "<eos>", ""]),
        ("<eos_long>", ["", "<eos_long>", ""]),
        ("<eos_lon>", ["<eos_lon>"]),
        ("<<eos>[X]", ["<", "<eos>", "", "[X]", ""]),
    ],
)
def test_control_texts_are_found_longest_first(text: str, parts: list[str]) -> None:
    assert ControlTexts(["<eos>", "<eos_long>", "[X]", ""]).split(text) == parts
