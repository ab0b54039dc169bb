"""Questions with known answers, and the measures of a search."""

import json
import math
from collections import Counter
from typing import Any

import pytest

from cli.errors import CommandError
from cli.remote.evaluation.metrics import MEASURES, Ranks, measures, ndcg, rank_hits
from cli.remote.evaluation.questions import Question, parse_questions
from testing.repository import REPOSITORY


def question(**fields: Any) -> Question:
    return Question.model_validate({"question": "When?", "document": "a.pdf", **fields})


def hit(text: str, page: int = 1, document: str = "a.pdf") -> dict[str, Any]:
    return {"document": document, "document_id": f"doc_{document}", "page": page, "text": text}


def test_an_answer_has_the_document_the_page_and_the_quote() -> None:
    asked = question(page=[2, 3], quote="The valve is closed.")
    assert asked.is_answered_by(hit("Then the VALVE is\nclosed, and so on", 3))
    assert not asked.is_answered_by(hit("the valve is closed", 1))
    assert not asked.is_answered_by(hit("the valve is closed", 2, "b.pdf"))
    assert not asked.is_answered_by(hit("the door is open", 2))
    assert question(document="doc_a.pdf").is_answered_by(hit("anything", 9))


def test_half_of_a_quote_suffices_where_a_chunk_ends_or_begins() -> None:
    asked = question(quote="thirty days of paid vacation")
    assert asked.is_answered_by(hit("are thirty days of paid"))
    assert asked.is_answered_by(hit("of paid vacation in every year"))
    assert not asked.is_answered_by(hit("vacation in every year"))


def test_the_first_right_hit_decides() -> None:
    hits = [hit("other", 2), hit("thirty days", 5), hit("thirty days", 2), hit("thirty days", 2)]
    assert rank_hits(hits, question(page=2, quote="thirty days")) == Ranks(answer=3, page=1)
    assert rank_hits(hits, question(page=7, quote="thirty days")) == Ranks(answer=None, page=None)


def test_measures_of_known_ranks() -> None:
    values = measures([Ranks(1, 1), Ranks(4, 2), Ranks(10, 6), Ranks(None, None)])
    assert tuple(values) == MEASURES
    assert (values["recall@3"], values["recall@5"], values["recall@10"]) == (0.25, 0.5, 0.75)
    assert values["mrr@10"] == pytest.approx((1 + 1 / 4 + 1 / 10) / 4)
    assert values["ndcg@10"] == pytest.approx((1 + 1 / math.log2(5) + 1 / math.log2(11)) / 4)
    assert values["page_hit@5"] == 0.5


def test_ndcg_with_grades() -> None:
    assert ndcg([2, 0, 1], [1, 2], 10) == pytest.approx((2 + 1 / 2) / (2 + 1 / math.log2(3)))
    assert ndcg([2, 1], [1, 2], 10) == 1.0
    assert ndcg([0.0] * 10 + [1.0], [1], 10) == 0.0


def test_all_errors_are_reported_with_their_lines() -> None:
    lines = [
        b'{"question": "a", "document": "a.pdf"}',
        b"",
        b'{"question": "a"}',
        b'{"question": "a", "document": "a.pdf", "page": 0}',
        b'{"question": "a", "document": "a.pdf", "pages": 1, "quote": 5}',
        b"not json",
        b'{"question": "a", "document": "a.pdf", "quote": "..."}',
    ]
    with pytest.raises(CommandError) as raised:
        parse_questions(lines, "file.jsonl")
    first, *errors = str(raised.value).splitlines()
    assert first == "file.jsonl has lines that cannot be used:"
    assert errors == [
        "line 3: document: field required",
        "line 4: page.0: input should be greater than or equal to 1",
        "line 5: quote: input should be a valid string",
        "line 5: pages: extra inputs are not permitted",
        "line 6: not a JSON object (expected ident at line 1 column 2)",
        "line 7: quote: has no letter or digit",
    ]
    with pytest.raises(CommandError, match=r"^file.jsonl has no questions\.$"):
        parse_questions([b"\n"], "file.jsonl")


def test_the_questions_of_the_benchmark_name_pages_of_its_manuals() -> None:
    folder = REPOSITORY / "benchmarks" / "retrieval"
    questions = parse_questions((folder / "questions.jsonl").read_bytes().splitlines(), "questions.jsonl")
    pages = {
        file["name"]: file["pages"]
        for package in json.loads((folder / "manuals.json").read_text(encoding="utf-8"))
        for file in package["files"]
    }
    kinds = Counter(asked.kind for asked in questions)
    assert len(questions) - kinds["follow-up"] >= 200
    assert kinds["follow-up"] >= 30
    assert all(asked.history and asked.standalone for asked in questions if asked.kind == "follow-up")
    for asked in questions:
        assert asked.page is not None
        assert max(asked.page) <= pages[asked.document[0]]
        assert asked.quote is not None
    assert len({asked.question for asked in questions if not asked.history}) == len(questions) - kinds["follow-up"]
