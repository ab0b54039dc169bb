"""Citation check: markers of answers against the passages that they name."""

from typing import Any

from workers.gpu.citation_check import check_citations

QUOTES = ["The archive is open on weekdays from nine to five.", "Loans are for 30 days."]


def checked(text: str) -> tuple[list[tuple[bool, float | None]], list[str]]:
    citations: list[dict[str, Any]] = [{"marker": f"[{number}]", "quote": quote} for number, quote in enumerate(QUOTES, 1)]
    result = check_citations(text, citations)
    assert [citation["quote"] for citation in result.citations] == QUOTES
    return [(citation["cited"], citation["support"]) for citation in result.citations], result.unknown_markers


def test_a_cited_passage_supports_the_words_that_it_contains() -> None:
    assert checked("The archive is open on weekdays [1].") == ([(True, 1.0), (False, None)], [])
    # "archive" is in the quote; "closed" and "sundays" are not.
    assert checked("The archive closed Sundays [1].") == ([(True, 0.333), (False, None)], [])
    assert checked("Loans are for 90 days. [2] The archive is open [1].") == ([(True, 1.0), (True, 0.667)], [])
    assert checked("Yes [1].") == ([(True, None), (False, None)], [])


def test_numbers_without_a_passage_are_reported_once() -> None:
    assert checked("It is open [3]. Really [3], says [12], and the archive [1].")[1] == ["[3]", "[12]"]
    assert checked("") == ([(False, None), (False, None)], [])
    assert checked("See [note] and [1234] and (1).")[1] == []
