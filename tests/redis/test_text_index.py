"""Text index: queries, filters, removal without traces, concurrent writers and damaged files."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from shared.documents.filters import parse_filter
from shared.documents.text_index import DocumentAttributes, TextIndex
from shared.errors import IndexUnavailable, InvalidValue
from workers.cpu.chunking import Chunk

INDEX = "col_one"


def about(name: str, **metadata: Any) -> DocumentAttributes:
    return DocumentAttributes(id=name, name=f"{name}.txt", media_type="text/plain", size=10, created_at=1000.0, metadata=metadata)


def chunks(*texts: str) -> list[Chunk]:
    return [Chunk(n, n + 1, 0, len(text), text, ["Title"]) for n, text in enumerate(texts)]


@pytest.fixture
def texts(tmp_path: Path) -> TextIndex:
    return TextIndex(tmp_path / "text-index")


def found(texts: TextIndex, query: str, filter_json: dict[str, Any] | None = None) -> list[str]:
    condition = None if filter_json is None else parse_filter(filter_json)
    return [f"{entry.document_id}:{entry.position}" for entry in texts.search_text(INDEX, query, 10, condition)]


def test_rare_words_rank_higher_and_word_forms_match(texts: TextIndex) -> None:
    texts.put_document(INDEX, about("a"), chunks("The boiler runs.", "The wheel of the engine.", "A wheel and a boiler valve."))
    assert found(texts, "valves") == ["a:2"]
    assert found(texts, "boilers with valve")[0] == "a:2"
    assert found(texts, "nothing") == []
    assert found(texts, '"*) OR (NEAR -') == []
    assert found(texts, "title") == ["a:0", "a:1", "a:2"], "headings are indexed with the chunk"


@pytest.mark.parametrize(
    ("text", "query"), [("蒸汽机的压力很高", "汽机压力"), ("Über die Kesselgröße", "uber"), ("отчёт за год", "ОТЧЁТ")]
)
def test_words_in_any_script_are_found(texts: TextIndex, text: str, query: str) -> None:
    texts.put_document(INDEX, about("a"), chunks(text))
    texts.put_document(INDEX, about("b"), chunks("Something else."))
    assert found(texts, query) == ["a:0"]


def test_a_document_is_replaced_completely(texts: TextIndex) -> None:
    texts.put_document(INDEX, about("a"), chunks("boiler one", "boiler two", "boiler three"))
    texts.put_document(INDEX, about("a"), chunks("boiler four"))
    assert [entry.text for entry in texts.search_text(INDEX, "boiler", 10)] == ["boiler four"]
    assert texts.count_by_document(INDEX) == {"a": 1}
    assert found(texts, "one") == []


def test_removed_text_leaves_no_trace(texts: TextIndex, tmp_path: Path) -> None:
    texts.put_document(INDEX, about("a"), chunks("unforgettable words", "other words"))
    texts.remove_document(INDEX, "a", position=0)
    assert texts.count_by_document(INDEX) == {"a": 1}
    assert found(texts, "unforgettable") == []
    texts.remove_document(INDEX, "a")
    texts.remove_document(INDEX, "a")
    assert (texts.count_by_document(INDEX), texts.contains_document(INDEX, "a")) == ({}, False)
    assert b"unforgettable words" not in (tmp_path / "text-index" / f"{INDEX}.db").read_bytes()
    texts.drop_index(INDEX)
    assert list((tmp_path / "text-index").iterdir()) == []


AFTER = time.time() + 1e6


def purge(texts: TextIndex) -> int:
    """Purge the index of all that was removed; return the number of steps."""
    steps = 1
    while texts.purge_words(INDEX, removed_before=AFTER, limit=2):
        steps += 1
    return steps


def test_a_purge_removes_the_words_of_removed_chunks_from_the_file(texts: TextIndex, tmp_path: Path) -> None:
    file = tmp_path / "text-index" / f"{INDEX}.db"
    for n in range(5):
        texts.put_document(INDEX, about(f"kept-{n}"), chunks(f"boilers {n}"))
        texts.put_document(INDEX, about(f"gone-{n}"), chunks(f"forgettable quokkas {n}", f"numbats {n}"))
    for n in range(5):
        texts.remove_document(INDEX, f"gone-{n}")
    assert b"quokka" in file.read_bytes()
    assert purge(texts) > 3, "each step is small"
    assert [word for word in (b"forget", b"quokka", b"numbat") if word in file.read_bytes()] == []
    assert sorted(found(texts, "boiler")) == [f"kept-{n}:0" for n in range(5)]


def test_what_is_put_and_removed_during_a_purge_is_right_after_it(texts: TextIndex, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        texts.put_document(INDEX, about(name), chunks(f"boiler quokka{name}"))
    texts.remove_document(INDEX, "a")
    assert texts.purge_words(INDEX, removed_before=AFTER, limit=2), "b and c are copied"
    another = TextIndex(tmp_path / "text-index")
    another.remove_document(INDEX, "b")
    another.remove_document(INDEX, "e")
    another.put_document(INDEX, about("c"), chunks("valve"))
    another.put_document(INDEX, about("f"), chunks("boiler"))
    assert sorted(found(texts, "boiler")) == ["d:0", "f:0"]
    assert purge(another) > 1, "another process continues"
    assert (sorted(found(texts, "boiler")), found(texts, "valve")) == (["d:0", "f:0"], ["c:0"])
    content = (tmp_path / "text-index" / f"{INDEX}.db").read_bytes()
    assert [name for name in "abcde" if f"quokka{name}".encode() in content] == ["d"]


def test_a_purge_waits_for_its_time_and_does_nothing_without_removals(texts: TextIndex, tmp_path: Path) -> None:
    texts = TextIndex(tmp_path / "text-index", clock=lambda: 1000.0)
    file = tmp_path / "text-index" / f"{INDEX}.db"
    texts.put_document(INDEX, about("a"), chunks("quokka"))
    untouched = file.read_bytes()
    assert not texts.purge_words(INDEX, removed_before=AFTER, limit=2)
    assert file.read_bytes() == untouched
    texts.remove_document(INDEX, "a")
    assert not texts.purge_words(INDEX, removed_before=1000.0, limit=2)
    assert texts.purge_words(INDEX, removed_before=1000.1, limit=2)
    assert not texts.purge_words("col_none", removed_before=AFTER, limit=2)
    assert texts.list_indexes() == [INDEX]


def test_an_index_of_an_earlier_version_is_purged_once(texts: TextIndex, tmp_path: Path) -> None:
    texts.put_document(INDEX, about("a"), chunks("boiler"))
    texts.put_document(INDEX, about("b"), chunks("quokka"))
    texts.remove_document(INDEX, "b")
    with sqlite3.connect(tmp_path / "text-index" / f"{INDEX}.db") as file:
        file.execute("drop table purge")
    assert purge(texts) > 1
    assert b"quokka" not in (tmp_path / "text-index" / f"{INDEX}.db").read_bytes()
    assert (purge(texts), found(texts, "boiler")) == (1, ["a:0"])


def test_an_index_that_does_not_exist_is_empty(texts: TextIndex) -> None:
    assert (found(texts, "boiler"), texts.count_by_document(INDEX), texts.document_chunks(INDEX, "a"), texts.list_indexes()) == (
        [],
        {},
        [],
        [],
    )
    assert texts.matching_chunks(INDEX, parse_filter({"page": 1}), 10) == []
    texts.remove_document(INDEX, "a")
    texts.drop_index(INDEX)


FILTERS = [
    ({"metadata.year": 2020}, "a"),
    ({"metadata.year": {"ne": 2020}}, "bcd"),
    ({"metadata.year": {"gt": 2020}}, "b"),
    ({"metadata.year": {"gte": 2020}}, "ab"),
    ({"metadata.year": {"lt": 2021}}, "a"),
    ({"metadata.year": {"gte": 2020, "lte": 2020}}, "a"),
    ({"metadata.year": {"in": [2020, 2022]}}, "ab"),
    ({"metadata.year": {"nin": [2020]}}, "bcd"),
    ({"metadata.year": "2020"}, ""),
    ({"metadata.year": {"gt": "1"}}, "c"),
    ({"metadata.draft": True}, "a"),
    ({"metadata.draft": False}, "b"),
    ({"metadata.draft": {"ne": True}}, "bcd"),
    ({'metadata.it\'s "odd"': "x"}, "d"),
    ({"or": [{"metadata.year": 2020}, {"name": "d.txt"}]}, "ad"),
    ({"and": [{"metadata.year": {"gte": 2000}}, {"or": [{"metadata.draft": False}, {"document_id": "c"}]}]}, "b"),
    ({"name": {"in": ["a.txt", "b.txt"]}, "media_type": "text/plain"}, "ab"),
    ({"created_at": {"lte": 1000}, "size": {"lt": 10}}, ""),
    ({"page": 1}, "abcd"),
    ({"page": {"gt": 1}}, ""),
]


@pytest.mark.parametrize(("filter_json", "expected"), FILTERS, ids=lambda value: str(value)[:60])
def test_a_filter_selects_matching_documents(texts: TextIndex, filter_json: dict[str, Any], expected: str) -> None:
    texts.put_document(INDEX, about("a", year=2020, draft=True), chunks("boiler"))
    texts.put_document(INDEX, about("b", year=2022, draft=False), chunks("boiler"))
    texts.put_document(INDEX, about("c", year="last year"), chunks("boiler"))
    texts.put_document(INDEX, about("d", **{'it\'s "odd"': "x"}), chunks("boiler"))
    condition = parse_filter(filter_json)
    assert sorted(entry.document_id for entry in texts.search_text(INDEX, "boiler", 10, condition)) == list(expected)
    matching = texts.matching_chunks(INDEX, condition, 10)
    assert matching is not None
    assert sorted(matching) == [(name, 0) for name in expected]
    everything = texts.load_chunks(INDEX, [(name, 0) for name in "abcd"], condition)
    assert sorted(document for document, _ in everything) == list(expected)
    assert len(expected) < 2 or texts.matching_chunks(INDEX, condition, 1) is None


@pytest.mark.parametrize(
    ("filter_json", "param"),
    [
        ({}, "filter"),
        ([], "filter"),
        ({"year": 1}, "filter.year"),
        ({"metadata.": 1}, "filter.metadata."),
        ({"page": {}}, "filter.page"),
        ({"page": {"$gt": 1}}, "filter.page.$gt"),
        ({"page": {"in": []}}, "filter.page.in"),
        ({"page": {"in": [[1]]}}, "filter.page.in"),
        ({"page": None}, "filter.page"),
        ({"page": 2**70}, "filter.page"),
        ({"and": {"page": 1}}, "filter.and"),
        ({"or": [{"page": 1}, {"pages": 1}]}, "filter.or.1.pages"),
        ({"or": [{"page": 1}] * 101}, "filter"),
    ],
    ids=str,
)
def test_an_invalid_filter_is_rejected_with_its_path(filter_json: Any, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_filter(filter_json)
    assert caught.value.param == param


def test_the_nesting_of_filters_is_limited() -> None:
    filter_json: dict[str, Any] = {"page": 1}
    for _ in range(1000):
        filter_json = {"and": [filter_json]}
    with pytest.raises(InvalidValue, match="8 levels deep"):
        parse_filter(filter_json)


def test_very_common_words_do_not_affect_the_ranking(texts: TextIndex) -> None:
    texts.put_document(INDEX, about("a"), chunks(*(f"the engine number {n}" for n in range(1200)), "the only valve"))
    assert found(texts, "the engine number of the valve") == ["a:1200"]
    assert len(found(texts, "the engine")) == 10, "a query of common words alone still finds chunks"


WRITER = """
import sys
from pathlib import Path
from shared.documents.text_index import DocumentAttributes, TextIndex
from workers.cpu.chunking import Chunk
texts, who = TextIndex(Path(sys.argv[1])), sys.argv[2]
for n in range(20):
    about = DocumentAttributes(id=f"{who}-{n}", name="x", media_type="text/plain", size=1, created_at=1.0, metadata={})
    texts.put_document("col_one", about, [Chunk(p, 1, 0, 1, f"boiler {who} {n} {p}") for p in range(50)])
    if n % 2:
        texts.remove_document("col_one", f"{who}-{n}")
"""


def test_concurrent_writers_lose_nothing_and_readers_see_complete_documents(texts: TextIndex, tmp_path: Path) -> None:
    folder = str(tmp_path / "text-index")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, folder, who]) for who in ("one", "two", "three")]
    halves, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            halves.extend(count for count in texts.count_by_document(INDEX).values() if count != 50)
            texts.search_text(INDEX, "boiler", 10)

    reader = threading.Thread(target=read)
    reader.start()
    assert [writer.wait(240) for writer in writers] == [0, 0, 0]
    stop.set()
    reader.join()
    assert halves == []
    assert texts.count_by_document(INDEX) == {f"{who}-{n}": 50 for who in ("one", "two", "three") for n in range(0, 20, 2)}
    assert len(texts.search_text(INDEX, "two", 5000)) == 500


def test_a_writer_killed_in_the_middle_leaves_what_was_there(texts: TextIndex, tmp_path: Path) -> None:
    texts.put_document(INDEX, about("a"), chunks("boiler"))
    code = (
        "import os, sys; from pathlib import Path; from shared.documents.text_index import TextIndex\n"
        "texts = TextIndex(Path(sys.argv[1]))\n"
        "with texts._writing('col_one') as file:\n"
        "    file.execute('pragma cache_spill=on'); file.execute('pragma cache_size=1')\n"
        "    file.execute('delete from documents'); file.execute('delete from chunks')\n"
        "    file.executemany('insert into chunks values(null, 9, ?, 1, 0, 1, 0, zeroblob(5000), null)', ((n,) for n in range(200)))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "text-index")])
    assert writer.wait(240) == -9
    assert texts.count_by_document(INDEX) == {"a": 1}
    assert found(texts, "boiler") == ["a:0"]


def test_the_error_for_a_damaged_file_names_the_repair_command(texts: TextIndex, tmp_path: Path) -> None:
    texts.put_document(INDEX, about("a"), chunks("boiler"))
    (tmp_path / "text-index" / f"{INDEX}.db").write_bytes(b"no database" * 1000)
    with pytest.raises(IndexUnavailable, match="collections check --fix") as caught:
        texts.search_text(INDEX, "boiler", 1)
    assert isinstance(caught.value.__cause__, sqlite3.Error)


def test_an_index_of_an_earlier_version_gets_the_column_for_the_confidence_of_ocr(texts: TextIndex, tmp_path: Path) -> None:
    texts.put_document(INDEX, about("old"), chunks("boilers"))
    with sqlite3.connect(tmp_path / "text-index" / f"{INDEX}.db") as file:
        file.execute("alter table chunks drop column confidence")
    [old] = texts.search_text(INDEX, "boilers", 5)
    assert (old.text, old.confidence) == ("boilers", None)
    texts.put_document(INDEX, about("scan"), [Chunk(0, 1, 0, 7, "turbine", (), 0.93)])
    assert {chunk.confidence for chunk in texts.search_text(INDEX, "boilers turbine", 5)} == {None, 0.93}
