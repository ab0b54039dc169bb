"""A chunk says exactly where it stands, fits the model, and nothing of a page is lost."""

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.cpu.chunking import CHARACTERS_PER_TOKEN, Chunk, chunk_pages
from workers.cpu.parsing.parser import Page

SIZE, OVERLAP = 24, 6

TEXT = st.text(st.sampled_from("ab.,\n\n    é漢-x") | st.characters(exclude_categories=["Cs"]), max_size=600)


def count(text: str) -> int:
    """Counts as a WordPiece tokenizer does: pieces of words and marks; a word too long for it is one unknown token."""
    return sum(1 if len(word) > 100 else -(-len(word) // 4) for word in re.findall(r"\w+|[^\w\s]", text))


def cut(*texts: str) -> list[Chunk]:
    pages = [Page(number=number, text=text) for number, text in enumerate(texts, 1)]
    return list(chunk_pages(pages, count, size=SIZE, overlap=OVERLAP))


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, max_size=3))
def test_each_chunk_is_the_text_at_its_place_and_all_text_is_in_some_chunk(texts: list[str]) -> None:
    chunks = cut(*texts)
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
def test_no_chunk_is_longer_than_the_size(text: str) -> None:
    for chunk in cut(text):
        assert count(chunk.text) <= SIZE
        assert len(chunk.text) <= SIZE * CHARACTERS_PER_TOKEN


def test_a_tokenizer_that_counts_more_for_the_whole_than_for_its_parts_is_cut_to_fit() -> None:
    chunks = list(chunk_pages([Page(number=1, text="ab " * 200)], lambda text: len(text) ** 2 // 20, size=30, overlap=0))
    assert all(len(chunk.text) ** 2 // 20 <= 30 for chunk in chunks)


def test_chunks_of_a_page_repeat_the_end_of_the_one_before_in_whole_words() -> None:
    text = " ".join(f"w{number:03}" for number in range(100))
    chunks = cut(text)
    assert len(chunks) > 4
    for before, after in pairwise(chunks):
        repeated = text[after.start : before.end]
        assert 0 < count(repeated) <= OVERLAP
        assert repeated.split() == before.text.split()[-len(repeated.split()) :]


def test_repeated_text_keeps_its_places() -> None:
    text = "same words again. " * 60
    chunks = cut(text)
    assert chunks[-1].end == len(text.rstrip())
    assert all(before.end <= after.end and before.start < after.start for before, after in pairwise(chunks))


def test_a_page_without_text_gives_no_chunk() -> None:
    assert cut("", " \n\t ") == []


def test_an_endless_word_is_not_one_chunk() -> None:
    assert max(len(chunk.text) for chunk in cut("x" * 10_000)) <= SIZE * CHARACTERS_PER_TOKEN


def test_a_chunk_begins_at_a_heading_and_knows_the_titles_above_it_also_from_earlier_pages() -> None:
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


def test_a_title_without_text_goes_with_the_section_that_follows_it() -> None:
    text = "Part one\nChapter\n" + "ab cd " * 6
    page = Page(number=1, text=text, headings=[[0, 1, "Part one"], [text.index("Chapter"), 2, "Chapter"]])
    [chunk] = chunk_pages([page], count, size=SIZE, overlap=OVERLAP)
    assert (chunk.start, chunk.headings) == (0, ("Part one", "Chapter"))


def test_code_is_cut_between_definitions() -> None:
    text = "".join(f"def f{number}(a):\n    b = a\n    return b\n\n\n" for number in range(9))
    chunks = list(chunk_pages([Page(number=1, text=text)], count, size=SIZE, overlap=0, name="f.py"))
    assert len(chunks) > 3
    assert all(chunk.text.startswith("def ") for chunk in chunks)
