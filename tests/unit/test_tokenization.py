"""Answers come piece by piece, and the pieces make the same text however they were cut."""

from hypothesis import given
from hypothesis import strategies as st

from shared.models.catalogue import ECHO, ModelEntry
from workers.gpu.tokenization import BROKEN, ByteTokenizer, Detokenizer, TextCodec

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[BROKEN]))


@st.composite
def tokens_in_pieces(draw: st.DrawFn, source: st.SearchStrategy[str] = texts) -> tuple[str, list[list[int]]]:
    text = draw(source)
    ids = ByteTokenizer().encode(text)
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=8)))
    return text, [ids[start:end] for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)]


def run(decoder: Detokenizer, pieces: list[list[int]]) -> list[str]:
    return [decoder.feed(piece)[0] for piece in pieces] + [decoder.flush()]


@given(tokens_in_pieces())
def test_any_split_of_the_tokens_gives_the_same_text(case: tuple[str, list[list[int]]]) -> None:
    text, pieces = case
    deltas = run(Detokenizer(ByteTokenizer()), pieces)
    assert "".join(deltas) == text
    assert not any(BROKEN in delta for delta in deltas)


@given(tokens_in_pieces(st.text("ab\n", max_size=40)), st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_is_cut_wherever_it_falls(case: tuple[str, list[list[int]]], stops: list[str]) -> None:
    text, pieces = case
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    decoder = Detokenizer(ByteTokenizer(), stops)
    assert "".join(run(decoder, pieces)) == (text[: min(ends)[1]] if ends else text)
    assert decoder.stopped == bool(ends)


@given(tokens_in_pieces(), st.text(min_size=1, max_size=3))
def test_no_delta_holds_a_stop_or_what_follows_it(case: tuple[str, list[list[int]]], stop: str) -> None:
    text, pieces = case
    assert stop not in "".join(run(Detokenizer(ByteTokenizer(), [stop]), pieces)) or stop not in text


def test_half_a_character_waits_for_its_other_half() -> None:
    decoder = Detokenizer(ByteTokenizer())
    first, second = "é".encode()
    assert decoder.feed([first]) == ("", False)
    assert decoder.feed([second]) == ("é", False)


def test_half_a_character_at_the_end_is_dropped() -> None:
    decoder = Detokenizer(ByteTokenizer())
    assert decoder.feed([*b"caf", "é".encode()[0]])[0] + decoder.flush() == "caf"


def test_what_may_be_a_stop_waits_until_it_is_not() -> None:
    decoder = Detokenizer(ByteTokenizer(), ["\nQ:"])
    assert decoder.feed([*b"yes\nQ"]) == ("yes", False)
    assert decoder.feed([*b"uite"]) == ("\nQuite", False)
    assert decoder.feed([*b"\nQ"])[0] + decoder.flush() == "\nQ"


def test_after_a_stop_nothing_more_is_given() -> None:
    decoder = Detokenizer(ByteTokenizer(), ["."])
    assert decoder.feed([*b"one. two."]) == ("one", True)
    assert decoder.feed([*b"three"]) == ("", True)
    assert decoder.flush() == ""


def test_an_answer_in_a_conversation_begins_with_its_first_word() -> None:
    decoder = Detokenizer(ByteTokenizer(), ["\n\n"], drop_leading_space=True)
    assert decoder.feed([*b"\n\n "]) == ("", False)
    assert decoder.feed([*b" Paris is"]) == ("Paris is", False)
    assert decoder.feed([*b"\n\nQ"]) == ("", True)


def test_bytes_that_never_make_a_character_do_not_hold_the_text_for_ever() -> None:
    decoder = Detokenizer(ByteTokenizer())
    assert BROKEN in decoder.feed([0xFF] * 100)[0]


def test_the_echo_engine_needs_no_model_for_its_text() -> None:
    text = TextCodec(ModelEntry(name="echo", url="echo:", engine=ECHO, stop=("END",)))
    assert text.encode_prompt("hé") == [*"hé".encode()]
    assert text.count("hé") == 3
    assert bytes(text.encode_messages([{"role": "user", "content": "hi"}])) == b"user: hi\n"
    assert text.decoder(["X"]).feed([*b"aENDb"]) == ("a", True)
    assert text.stop_token_ids == ()
