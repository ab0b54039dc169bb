"""Search finds a word however its letters were typed, and shows the text as it was read."""

import sqlite3
import unicodedata
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.schemas.requests.search import SearchRequest
from shared.documents import text_index
from shared.documents.text_index import DocumentAttributes, TextIndex, search_form
from workers.cpu.chunking import Chunk

INDEX = "col_one"


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def put(texts: TextIndex, document: str, text: str) -> None:
    about = DocumentAttributes(id=document, name=document, media_type="text/plain", size=1, created_at=0.0, metadata={})
    texts.put_document(INDEX, about, [Chunk(0, 1, 0, len(text), text, [])])


@pytest.fixture
def texts(tmp_path: Path) -> TextIndex:
    return TextIndex(tmp_path / "text-index")


SAME = [
    ("Her résumé", nfd("résumé")),
    (nfd("Her résumé"), "résumé"),
    ("회의록은 서울", nfd("서울")),
    (nfd("회의록은 서울"), "서울"),
    ("Donau\u00addampf\u00adschiff", "Donaudampfschiff"),
    ("coop\u00ad\neration", "cooperation"),
    ("cooperation", "coop\u00aderation"),
    ("zero\u200bwidth", "zerowidth"),
    ("The o\ufb03ce \ufb01le", "office"),
    ("The office", "o\ufb03ce"),
    ("\uff21\uff22\uff23\uff11\uff12\uff13", "ABC123"),
    ("\uff83\uff7d\uff84", "テスト"),
    ("area 5 m²", "m2"),
    ("Straße", "STRASSE"),
    ("ΟΔΟΣ", "οδος"),
    ("İstanbul", "istanbul"),
    ("会議は三時です", "会議"),
    ("การประชุมจะเริ่ม", "ประชุม"),
    ("\ufefb", "\u0644\u0627"),
    ("alpha beta", '"alpha'),
    ("alpha beta", "alpha* NEAR(beta)"),
    ("alpha beta", "col:alpha AND"),
]


@pytest.mark.parametrize(("text", "query"), SAME)
def test_a_word_is_found_in_every_form(texts: TextIndex, text: str, query: str) -> None:
    put(texts, "a", text)
    put(texts, "b", "something else")
    [chunk] = texts.search_text(INDEX, query, 10)
    assert chunk.text == text, "the text is shown as it was read"


def test_a_form_does_not_change_again() -> None:
    for text in {part for pair in SAME for part in pair}:
        assert search_form(search_form(text)) == search_form(text)


def test_words_are_removed_with_their_document(texts: TextIndex, tmp_path: Path) -> None:
    put(texts, "a", "Straße o\ufb03ce")
    put(texts, "a", "something else")
    assert texts.search_text(INDEX, "office strasse", 10) == []
    with sqlite3.connect(tmp_path / "text-index" / f"{INDEX}.db") as file:
        assert file.execute("select term from vocabulary order by term").fetchall() == [("els",), ("someth",)]


def test_an_index_of_an_earlier_version_keeps_working(texts: TextIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "SEARCH_FORM_VERSION", 0)
    put(texts, "old", "Straße résumé 会議")
    monkeypatch.undo()
    put(texts, "new", "Straße cafe\u0301")
    for query, found in (
        ("straße", {"old", "new"}),
        (nfd("résumé"), {"old"}),
        ("会議", {"old"}),
        ("café", {"new"}),
        ("strasse", set()),
    ):
        assert {chunk.document_id for chunk in texts.search_text(INDEX, query, 10)} == found
    for document in ("old", "new"):
        texts.remove_document(INDEX, document)
    with sqlite3.connect(tmp_path / "text-index" / f"{INDEX}.db") as file:
        assert file.execute("select count(*) from vocabulary").fetchone() == (0,)


@pytest.mark.parametrize("query", ["", " ", " \n\t ", "\u3000"])
def test_a_blank_query_is_refused(query: str) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate({"query": query})
