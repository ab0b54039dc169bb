"""The OCR twin of the retrieval benchmark: which pages become pictures, and what is compared."""

from pathlib import Path

from benchmarks.retrieval.__main__ import manuals_collection
from benchmarks.retrieval.twin import choose_pages, questions_about, shares_kept
from cli.remote.evaluation.questions import read_questions
from testing.repository import REPOSITORY

QUESTIONS = [
    question for question in read_questions(REPOSITORY / "benchmarks" / "retrieval" / "questions.jsonl") if not question.history
]


def test_a_hundred_pages_of_all_manuals_have_questions_of_their_own() -> None:
    pages = choose_pages(QUESTIONS, 100)
    assert sum(map(len, pages.values())) == 100
    assert set(pages) == {question.document[0] for question in QUESTIONS}
    assert len(questions_about(QUESTIONS, pages)) >= 100


def test_a_measure_that_is_zero_for_text_has_no_share() -> None:
    assert shares_kept({"recall@3": 0.0, "recall@5": 0.5}, {"recall@3": 0.25, "recall@5": 0.25}) == {"recall@5": 0.5}


def test_a_selection_of_manuals_has_a_collection_of_its_own() -> None:
    one, two = (manuals_collection([Path(name) for name in names], 200) for names in (["a.pdf"], ["a.pdf", "b.pdf"]))
    assert one != two
