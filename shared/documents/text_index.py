"""The chunks of a collection with their words: one SQLite file for each index, which answers keyword queries by BM25.

It also gives the text of chunks that the vector index names, so that text is kept in one place and not in two, and tells
which chunks meet a filter. Several processes, also of several hosts that share the folder, read and write a file at once:
SQLite's locks keep them apart (a rollback journal, as its write-ahead log works on one host only). What may be shown (only
documents that are ready) is not known here.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shared.documents.filter_sql import sql_of
from shared.documents.filters import Condition
from shared.errors import IndexUnavailable

LOCK_SECONDS = 20.0
MOST_TERMS = 64
"""Words of a query that are looked for; a question has fewer, and a page pasted as a query is still answered in time."""

COMMON_SHARE, COMMON_FROM = 0.2, 1000
"""A word that stands in more than a fifth of the chunks of a large index ranks nothing, and costs most of the time."""

_SCHEMA = """
create table if not exists documents(
  key integer primary key, id text not null unique, name text not null, media_type text not null, size integer not null,
  created_at real not null, metadata text not null);
create table if not exists chunks(
  key integer primary key, document integer not null, position integer not null, page integer not null,
  start integer not null, "end" integer not null, headings text not null, text text not null, unique(document, position));
create virtual table if not exists words using fts5(terms, content='', tokenize="porter unicode61 remove_diacritics 2");
create virtual table if not exists vocabulary using fts5vocab(words, row);
"""

_COLUMNS = 'd.id, c.position, c.page, c.start, c."end", c.headings, c.text'

# Scripts that put no space between words; a run of them is indexed character by character and looked up in pairs.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_UNSPACED_CHARACTER = re.compile(f"([{_UNSPACED}])")
_TERM = re.compile(f"[{_UNSPACED}]+|[^\\W{_UNSPACED}]+")


class ChunkRecord(Protocol):
    """A chunk, as far as it is kept here."""

    @property
    def position(self) -> int: ...
    @property
    def page(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def headings(self) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True)
class DocumentAttributes:
    """What filters may ask of a document. ``created_at`` is in Unix seconds."""

    id: str
    name: str
    media_type: str
    size: int
    created_at: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class IndexedChunk:
    """A chunk that is kept; ``score`` is its BM25 for the query that found it, higher is better, else 0."""

    document_id: str
    position: int
    page: int
    start: int
    end: int
    headings: tuple[str, ...]
    text: str
    score: float = 0.0

    @property
    def chunk_ref(self) -> tuple[str, int]:
        return self.document_id, self.position


class TextIndex:
    """The files in ``folder`` (``settings.text_index_dir``), each named by its index.

    Every method raises IndexUnavailable when a file is locked for too long, damaged, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put_document(self, index: str, about: DocumentAttributes, chunks: Iterable[ChunkRecord]) -> int:
        """Replace a document and all its chunks, as a whole; how many chunks it has now."""
        with self._writing(index) as file:
            _forget(file, about.id)
            key = file.execute(
                "insert into documents(id, name, media_type, size, created_at, metadata) values(?, ?, ?, ?, ?, ?)",
                (about.id, about.name, about.media_type, about.size, about.created_at, json.dumps(dict(about.metadata))),
            ).lastrowid
            count = 0
            for chunk in chunks:
                row = (key, chunk.position, chunk.page, chunk.start, chunk.end, json.dumps(list(chunk.headings)), chunk.text)
                added = file.execute(
                    'insert into chunks(document, position, page, start, "end", headings, text) values(?, ?, ?, ?, ?, ?, ?)', row
                ).lastrowid
                file.execute("insert into words(rowid, terms) values(?, ?)", (added, _words(chunk.headings, chunk.text)))
                count += 1
        return count

    def remove_document(self, index: str, document_id: str, *, position: int | None = None) -> None:
        """Remove a document, or one chunk of it; nothing happens when it is not there."""
        if self._path(index).exists():
            with self._writing(index) as file:
                _forget(file, document_id, position)

    def drop_index(self, index: str) -> None:
        """Remove an index with all that is in it."""
        for path in (self._path(index), self._folder / f"{index}.db-journal"):
            path.unlink(missing_ok=True)

    def list_indexes(self, collection_id: str = "") -> list[str]:
        """The names of all indexes, or of those of one collection."""
        return sorted(path.stem for path in self._folder.glob(f"{collection_id}*.db"))

    def search_text(self, index: str, query: str, limit: int, condition: Condition | None = None) -> list[IndexedChunk]:
        """The chunks in which words of the query stand, by BM25, best first."""
        with self._reading(index) as file:
            match = _match(file, query) if file is not None else ""
            if file is None or not match:
                return []
            where, values = sql_of(condition) if condition is not None else ("1", [])
            # Without a filter the best are chosen before anything else is read of them.
            if condition is None:
                found = "select rowid as key, rank from words where words match ? order by rank limit ?"
                rows = file.execute(
                    f"select {_COLUMNS}, -f.rank from ({found}) f join chunks c on c.key = f.key "
                    "join documents d on d.key = c.document order by f.rank",
                    (match, limit),
                )
            else:
                rows = file.execute(
                    f"select {_COLUMNS}, -w.rank from words w join chunks c on c.key = w.rowid "
                    f"join documents d on d.key = c.document where words match ? and {where} order by w.rank limit ?",
                    (match, *values, limit),
                )
            return [_entry(row[:-1], row[-1]) for row in rows]

    def matching_chunks(self, index: str, condition: Condition, most: int) -> list[tuple[str, int]] | None:
        """The places (document, position) of all chunks that meet a filter; None when there are more than ``most``."""
        with self._reading(index) as file:
            if file is None:
                return []
            where, values = sql_of(condition)
            found = file.execute(
                f"select d.id, c.position from documents d join chunks c on c.document = d.key where {where} limit ?",
                (*values, most + 1),
            ).fetchall()
        return found if len(found) <= most else None

    def load_chunks(
        self, index: str, places: Iterable[tuple[str, int]], condition: Condition | None = None
    ) -> dict[tuple[str, int], IndexedChunk]:
        """The chunks at these places, of those that are there and meet the filter."""
        found: dict[tuple[str, int], IndexedChunk] = {}
        with self._reading(index) as file:
            if file is None:
                return found
            where, values = sql_of(condition) if condition is not None else ("1", [])
            for document_id, position in places:
                for row in file.execute(
                    f"select {_COLUMNS} from documents d join chunks c on c.document = d.key "
                    f"where d.id = ? and c.position = ? and {where}",
                    (document_id, position, *values),
                ):
                    found[document_id, position] = _entry(row)
        return found

    def document_chunks(
        self, index: str, document_id: str, *, first: int = 0, last: int | None = None, limit: int = -1
    ) -> list[IndexedChunk]:
        """The chunks of a document from position ``first`` to ``last``, in order, at most ``limit`` of them."""
        with self._reading(index) as file:
            if file is None:
                return []
            rows = file.execute(
                f"select {_COLUMNS} from documents d join chunks c on c.document = d.key "
                "where d.id = ? and c.position >= ? and c.position <= ? order by c.position limit ?",
                (document_id, first, 2**62 if last is None else last, limit),
            )
            return [_entry(row) for row in rows]

    def count_by_document(self, index: str) -> dict[str, int]:
        """Document id -> number of its chunks, of all documents."""
        with self._reading(index) as file:
            if file is None:
                return {}
            return dict(
                file.execute("select d.id, count(c.key) from documents d left join chunks c on c.document = d.key group by d.key")
            )

    def count_chunks(self, index: str, document_id: str) -> int:
        """How many chunks of a document there are."""
        with self._reading(index) as file:
            if file is None:
                return 0
            found = file.execute(
                "select count(*) from chunks c join documents d on d.key = c.document where d.id = ?", (document_id,)
            )
            return int(found.fetchone()[0])

    def contains_document(self, index: str, document_id: str) -> bool:
        """Whether the document has been put into this index."""
        with self._reading(index) as file:
            return (
                file is not None and file.execute("select 1 from documents where id = ?", (document_id,)).fetchone() is not None
            )

    def _path(self, index: str) -> Path:
        if not re.fullmatch(r"[a-z0-9_.]{1,100}", index):
            raise ValueError(f"not the name of an index: {index[:80]!r}")
        return self._folder / f"{index}.db"

    @contextmanager
    def _writing(self, index: str) -> Iterator[sqlite3.Connection]:
        path = self._path(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _told(path):
            file = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
            try:
                # Deleted text is overwritten; a transaction stays in memory until its end, so that readers wait for that alone.
                file.executescript("pragma journal_mode=truncate; pragma secure_delete=on; pragma cache_spill=off;")
                file.execute("begin immediate")
                if file.execute("select 1 from sqlite_master where name = 'vocabulary'").fetchone() is None:
                    for statement in _SCHEMA.split(";\n"):
                        file.execute(statement)
                yield file
                file.execute("commit")
            finally:
                file.close()

    @contextmanager
    def _reading(self, index: str) -> Iterator[sqlite3.Connection | None]:
        """The file, or None where nothing was ever put into this index. Opened anew each time, which takes under a
        millisecond: a file may be dropped at any moment, and a connection that is kept would go on reading it."""
        path = self._path(index)
        if not path.exists():
            yield None
            return
        with _told(path):
            file = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS, isolation_level=None)
            try:
                if file.execute("select 1 from sqlite_master where name = 'vocabulary'").fetchone() is None:
                    yield None
                else:
                    yield file
            finally:
                file.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise IndexUnavailable(
            f"The text index {path.name} cannot be used: {error}. If it is damaged, run: enginehouse collections check --fix"
        ) from error


def _forget(file: sqlite3.Connection, document_id: str, position: int | None = None) -> None:
    chunks = "select c.key, c.headings, c.text from chunks c join documents d on d.key = c.document where d.id = ?"
    values: list[Any] = [document_id]
    if position is not None:
        chunks, values = f"{chunks} and c.position = ?", [document_id, position]
    for key, headings, text in file.execute(chunks, values).fetchall():
        # The index of words keeps no text, so it must be told what stood there.
        file.execute("insert into words(words, rowid, terms) values('delete', ?, ?)", (key, _words(json.loads(headings), text)))
        file.execute("delete from chunks where key = ?", (key,))
    if position is None:
        file.execute("delete from documents where id = ?", (document_id,))


def _words(headings: Sequence[str], text: str) -> str:
    return _UNSPACED_CHARACTER.sub(r" \1 ", "\n".join([*headings, text]))


def _match(file: sqlite3.Connection, query: str) -> str:
    """The query in the language of FTS5: any of its terms, without those that stand nearly everywhere."""
    terms: dict[str, None] = {}
    for run in _TERM.findall(query):
        if _UNSPACED_CHARACTER.match(run):
            terms |= dict.fromkeys(" ".join(run[n : n + 2]) for n in range(max(1, len(run) - 1)))
        else:
            terms[run.lower()] = None
    chosen = list(terms)[:MOST_TERMS]
    [chunks] = file.execute("select count(*) from chunks").fetchone()
    if chunks > COMMON_FROM:
        limit = int(chunks * COMMON_SHARE)
        rare = [term for term in chosen if not _stands_in_more(file, term, limit)]
        chosen = rare or chosen
    return " OR ".join(f'"{term}"' for term in chosen)


def _stands_in_more(file: sqlite3.Connection, term: str, limit: int) -> bool:
    found = file.execute("select count(*) from (select 1 from words where words match ? limit ?)", (f'"{term}"', limit + 1))
    return int(found.fetchone()[0]) > limit


def _entry(row: Sequence[Any], score: float = 0.0) -> IndexedChunk:
    document_id, position, page, start, end, headings, text = row
    return IndexedChunk(
        document_id=document_id,
        position=position,
        page=page,
        start=start,
        end=end,
        headings=tuple(json.loads(headings)),
        text=text,
        score=score,
    )
