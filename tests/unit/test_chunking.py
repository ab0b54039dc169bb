"""Chunking: chunks have exact ranges, fit the model, and cover all text of a page."""

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.cpu.chunking import CHARACTERS_PER_TOKEN, Chunk, chunk_pages
from workers.cpu.parsing.parser import Page

SIZE, OVERLAP = 24, 6

TEXT = st.text(st.sampled_from("ab.,\n\n    é漢-x") | st.characters(exclude_categories=["Cs"]), max_size=600)


def count(text: str) -> int:
    """Count like a WordPiece tokenizer: word pieces and punctuation; a very long word is one unknown token."""
    return sum(1 if len(word) > 100 else -(-len(word) // 4) for word in re.findall(r"\w+|[^\w\s]", text))


def chunks_of(*texts: str) -> list[Chunk]:
    pages = [Page(number=number, text=text) for number, text in enumerate(texts, 1)]
    return list(chunk_pages(pages, count, size=SIZE, overlap=OVERLAP))


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, max_size=3))
def test_every_chunk_matches_its_range_and_all_text_is_covered(texts: list[str]) -> None:
    chunks = chunks_of(*texts)
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    for number, text in enumerate(texts, 1):
        covered = [False] * len(text)
        for chunk in (chunk for chunk in chunks if chunk.page == number):
            assert text[chunk.start : chunk.end] == chunk.text
            assert chunk.text.strip()
            covered[chunk.start : chunk.end] = [True] * len(chunk.text)
        assert not "".join(character for character, seen in zip(text, covered, strict=True) if not seen).strip()


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_no_chunk_exceeds_the_size(text: str) -> None:
    for chunk in chunks_of(text):
        assert count(chunk.text) <= SIZE
        assert len(chunk.text) <= SIZE * CHARACTERS_PER_TOKEN


def test_chunks_fit_even_if_a_whole_counts_more_tokens_than_its_parts() -> None:
    chunks = list(chunk_pages([Page(number=1, text="ab " * 200)], lambda text: len(text) ** 2 // 20, size=30, overlap=0))
    assert all(len(chunk.text) ** 2 // 20 <= 30 for chunk in chunks)


def test_a_chunk_repeats_the_end_of_the_previous_one_in_whole_words() -> None:
    text = " ".join(f"w{number:03}" for number in range(100))
    chunks = chunks_of(text)
    assert len(chunks) > 4
    for before, after in pairwise(chunks):
        repeated = text[after.start : before.end]
        assert 0 < count(repeated) <= OVERLAP
        assert repeated.split() == before.text.split()[-len(repeated.split()) :]


def test_repeated_text_keeps_its_ranges() -> None:
    text = "same words again. " * 60
    chunks = chunks_of(text)
    assert chunks[-1].end == len(text.rstrip())
    assert all(before.end <= after.end and before.start < after.start for before, after in pairwise(chunks))


def test_a_page_without_text_has_no_chunk() -> None:
    assert chunks_of("", " \n\t ") == []


def test_a_very_long_word_is_split() -> None:
    assert max(len(chunk.text) for chunk in chunks_of("x" * 10_000)) <= SIZE * CHARACTERS_PER_TOKEN


def test_a_chunk_starts_at_a_heading_and_has_the_titles_above_it_across_pages() -> None:
    body = " ".join(f"word{number}" for number in range(12)) + "."
    first = f"Boilers\n{body}\nSafety\n{body}\n"
    second = f"{body}\nEngines\n{body}\n"
    pages = [
        Page(number=1, text=first, headings=[[0, 1, "Boilers"], [first.index("Safety"), 2, " Safety\n"]]),
        Page(number=2, text=second, headings=[[second.index("Engines"), 1, "Engines"]]),
    ]
    chunks = list(chunk_pages(pages, count, size=48, overlap=0))
    assert [(chunk.page, chunk.headings, chunk.text.split()[0]) for chunk in chunks] == [
        (1, ("Boilers",), "Boilers"),
        (1, ("Boilers", "Safety"), "Safety"),
        (2, ("Boilers", "Safety"), "word0"),
        (2, ("Engines",), "Engines"),
    ]


def test_a_title_without_text_is_joined_to_the_next_section() -> None:
    text = "Part one\nChapter\n" + "ab cd " * 6
    page = Page(number=1, text=text, headings=[[0, 1, "Part one"], [text.index("Chapter"), 2, "Chapter"]])
    [chunk] = chunk_pages([page], count, size=SIZE, overlap=OVERLAP)
    assert (chunk.start, chunk.headings) == (0, ("Part one", "Chapter"))


def test_source_code_is_split_between_definitions() -> None:
    text = "".join(f"def f{number}(a):\n    b = a\n    return b\n\n\n" for number in range(9))
    chunks = list(chunk_pages([Page(number=1, text=text)], count, size=SIZE, overlap=0, name="f.py"))
    assert len(chunks) > 3
    assert all(chunk.text.startswith("def ") for chunk in chunks)
