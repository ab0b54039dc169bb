"""Text index: the text of chunks and a BM25 keyword index, in one SQLite file for each index.

It is the only store of chunk text: hits of the vector store are looked up here, and so are the chunks that match a filter.
Several processes read and write a file at once, also from several hosts that share the folder. SQLite's locks keep them
apart; the journal is a rollback journal because the write-ahead log works on one host only. The index does not know which
documents may be shown.

Chunks keep their text as it was read. Only the words by which they are found are brought into one form (``search_form``), as are
the words of a query.
"""

import json
import re
import sqlite3
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shared.documents.filter_sql import filter_to_sql
from shared.documents.filters import Condition
from shared.errors import IndexUnavailable, ReindexNeeded

LOCK_SECONDS = 20.0
PURGE_LOCK_SECONDS = 1.0
"""How long a purge waits for a lock. It can wait for the next round, and its thread has other duties."""

COMPACT_BYTES = 32 * 1024 * 1024
"""Size without free pages up to which a file is compacted after a purge. Searches wait meanwhile, at this size for about a second."""

MAX_TERMS = 64
"""Query words that are searched for. A question has fewer; the limit keeps a page pasted as a query fast."""

COMMON_SHARE, COMMON_FROM = 0.2, 1000
"""In an index of at least COMMON_FROM chunks, words in more than this share of them are skipped: they do not affect the
ranking and take most of the time."""

SEARCH_FORM_VERSION = 1
"""Version of ``search_form``, which each index records as its SQLite user version. An index of version 0 holds words as they were
read. It stays as it is until its collection is reindexed, because a row can be deleted only with the words that it was put with."""

_SCHEMA = """
create table if not exists documents(
  key integer primary key, id text not null unique, name text not null, media_type text not null, size integer not null,
  created_at real not null, metadata text not null);
create table if not exists chunks(
  key integer primary key, document integer not null, position integer not null, page integer not null,
  start integer not null, "end" integer not null, headings text not null, text text not null, confidence real,
  unique(document, position));
create virtual table if not exists vocabulary using fts5vocab(words, row);
"""

# One row. ``removed_at``: when the first chunk was removed whose words no purge covers yet. ``next_key``: the first chunk whose words a
# purge has yet to copy, or null if none is under way. ``compact``: whether the file has yet to be compacted.
_PURGE_TABLE = "create table purge(removed_at real, next_key integer, compact integer not null)"

# Soft hyphens, joiners, marks of direction and others that are not seen and part no words.
_INVISIBLE = dict.fromkeys(
    [0xAD, 0x34F, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF]
)

_SOFT_BREAK = re.compile("\u00ad[ \\t]{0,20}\\n[ \\t]{0,20}")

_COLUMNS = 'd.id, c.position, c.page, c.start, c."end", c.headings, c.text'

# Scripts without spaces between words. They are indexed by character and searched by pairs of characters.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_UNSPACED_CHARACTER = re.compile(f"([{_UNSPACED}])")
_TERM = re.compile(f"[{_UNSPACED}]+|[^\\W{_UNSPACED}]+")


ChunkRef = tuple[str, int]
"""A chunk's document id and position."""


class ChunkRecord(Protocol):
    """The fields of a chunk that the index stores."""

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
    @property
    def confidence(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class DocumentAttributes:
    """Document fields that filters can use. ``created_at`` is in Unix seconds."""

    id: str
    name: str
    media_type: str
    size: int
    created_at: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class IndexedChunk:
    """A stored chunk. ``score`` is its score for the query that found it (higher is better), otherwise 0. ``confidence`` is that of
    OCR, or None if the text was not read by OCR."""

    document_id: str
    position: int
    page: int
    start: int
    end: int
    headings: tuple[str, ...]
    text: str
    score: float = 0.0
    confidence: float | None = None

    @property
    def chunk_ref(self) -> ChunkRef:
        return self.document_id, self.position


class TextIndex:
    """The index files in ``folder`` (``settings.text_index_dir``), each named after its index.

    Every method raises IndexUnavailable when a file is locked for too long, damaged, or not writable.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def put_document(
        self,
        index: str,
        attributes: DocumentAttributes,
        chunks: Iterable[ChunkRecord],
        *,
        read_latest: Callable[[], tuple[str, Mapping[str, Any]] | None] = lambda: None,
    ) -> int:
        """Replace a document and all its chunks in one transaction; return the number of chunks.

        ``read_latest`` is called within the transaction, and what it returns replaces the name and the metadata in ``attributes``: ``set_name``
        or ``set_metadata`` may have been called since these were read.
        """
        with self._writing(index) as file:
            name, metadata = read_latest() or (attributes.name, attributes.metadata)
            self._delete_rows(file, attributes.id)
            version, next_key = _version(file), _next_key(file)
            key = file.execute(
                "insert into documents(id, name, media_type, size, created_at, metadata) values(?, ?, ?, ?, ?, ?)",
                (
                    attributes.id,
                    name,
                    attributes.media_type,
                    attributes.size,
                    attributes.created_at,
                    json.dumps(dict(metadata)),
                ),
            ).lastrowid
            count = 0
            for chunk in chunks:
                headings = json.dumps(list(chunk.headings))
                row = (key, chunk.position, chunk.page, chunk.start, chunk.end, headings, chunk.text, chunk.confidence)
                added = file.execute(
                    'insert into chunks(document, position, page, start, "end", headings, text, confidence) '
                    "values(?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                ).lastrowid
                for table in _word_tables(added, next_key):
                    file.execute(
                        f"insert into {table}(rowid, terms) values(?, ?)", (added, _words(chunk.headings, chunk.text, version))
                    )
                count += 1
        return count

    def set_metadata(self, index: str, document_id: str, metadata: Mapping[str, Any]) -> None:
        """Replace the metadata of a document, if it is there. Write it to the record first: see ``put_document``."""
        if self._path(index).exists():
            with self._writing(index) as file:
                file.execute("update documents set metadata = ? where id = ?", (json.dumps(dict(metadata)), document_id))

    def set_name(self, index: str, document_id: str, name: str) -> None:
        """Change the name of a document, if it is there. Write it to the record first: see ``put_document``."""
        if self._path(index).exists():
            with self._writing(index) as file:
                file.execute("update documents set name = ? where id = ?", (name, document_id))

    def remove_document(self, index: str, document_id: str, *, position: int | None = None) -> None:
        """Remove a document, or its chunk at ``position``, if it is there."""
        if self._path(index).exists():
            with self._writing(index) as file:
                self._delete_rows(file, document_id, position)

    def purge_words(self, index: str, *, removed_before: float, limit: int) -> bool:
        """Take a step to remove what is left of removed chunks from the file; return whether more steps are needed.

        FTS5 only marks removed words, and even its ``optimize`` leaves some in the file. So a purge, which starts if a chunk was removed before
        the Unix time ``removed_before``, builds a second table of words and drops the first. A step copies the words of up to ``limit``
        chunks in a transaction of its own: others read and write between steps, and any process can continue. At the end the file is
        compacted, because SQLite leaves copies of rows in unused parts of pages when it rearranges them.
        """
        with self._reading(index) as file:
            if file is None or not _needs_purge(file, removed_before):
                return False
        with self._writing(index, lock_seconds=PURGE_LOCK_SECONDS) as file:
            if not _needs_purge(file, removed_before):  # another process has done it
                return False
            next_key, compact = file.execute("select next_key, compact from purge").fetchone()
            if not compact:
                if next_key is None:
                    next_key = 0
                    file.execute(_words_table("next_words"))
                    file.execute("update purge set removed_at = null")
                self._copy_words(file, next_key, limit)
                return True
        self._compact(index)
        with self._writing(index, lock_seconds=PURGE_LOCK_SECONDS) as file:
            file.execute("update purge set compact = 0")
            return _needs_purge(file, removed_before)

    def _copy_words(self, file: sqlite3.Connection, next_key: int, limit: int) -> None:
        version = _version(file)
        rows = file.execute(
            "select key, headings, text from chunks where key >= ? order by key limit ?", (next_key, limit)
        ).fetchall()
        for key, headings, text in rows:
            terms = _words(json.loads(headings), text, version)
            file.execute("insert into next_words(rowid, terms) values(?, ?)", (key, terms))
        if len(rows) == limit:
            file.execute("update purge set next_key = ?", (rows[-1][0] + 1,))
        else:
            file.execute("drop table words")
            file.execute("alter table next_words rename to words")
            file.execute("update purge set next_key = null, compact = 1")

    def _compact(self, index: str) -> None:
        path = self._path(index)
        with _wrap_errors(path), closing(sqlite3.connect(path, timeout=PURGE_LOCK_SECONDS, isolation_level=None)) as file:
            pages, free, page_size = (
                file.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            )
            if (pages - free) * page_size <= COMPACT_BYTES:
                # The copy is made in memory: a container may have no room for temporary files.
                file.executescript("pragma journal_mode=truncate; pragma temp_store=memory; vacuum;")

    def drop_index(self, index: str) -> None:
        """Delete an index with all its documents, if it exists."""
        for path in (self._path(index), self._folder / f"{index}.db-journal"):
            path.unlink(missing_ok=True)

    def has_index(self, index: str) -> bool:
        """Whether an index exists."""
        with self._reading(index) as file:
            return file is not None

    def form_version(self, index: str) -> int:
        """The version of ``search_form`` that an index was made with; the present one if it does not exist."""
        with self._reading(index) as file:
            return SEARCH_FORM_VERSION if file is None else _version(file)

    def list_indexes(self, collection_id: str = "") -> list[str]:
        """Names of all indexes, or of those of one collection."""
        return sorted(path.stem for path in self._folder.glob(f"{collection_id}*.db"))

    def search_text(self, index: str, query: str, limit: int, condition: Condition | None = None) -> list[IndexedChunk]:
        """Chunks that contain words of the query, ranked by BM25, best first."""
        with self._reading(index) as file:
            match = _match(file, query) if file is not None else ""
            if file is None or not match:
                return []
            where, values = filter_to_sql(condition) if condition is not None else ("1", [])
            # Without a filter, the best rows are chosen before their text is read.
            if condition is None:
                ranked = "select rowid as key, rank from words where words match ? order by rank limit ?"
                rows = file.execute(
                    f"select {_columns(file)}, -f.rank from ({ranked}) f join chunks c on c.key = f.key "
                    "join documents d on d.key = c.document order by f.rank",
                    (match, limit),
                )
            else:
                rows = file.execute(
                    f"select {_columns(file)}, -w.rank from words w join chunks c on c.key = w.rowid "
                    f"join documents d on d.key = c.document where words match ? and {where} order by w.rank limit ?",
                    (match, *values, limit),
                )
            return [_indexed_chunk(row[:-1], row[-1]) for row in rows]

    def count_matching(self, index: str, condition: Condition | None = None) -> int:
        """The number of chunks, or of those that match a filter."""
        with self._reading(index) as file:
            if file is None:
                return 0
            where, values = filter_to_sql(condition) if condition is not None else ("1", [])
            counted = file.execute(f"select count(*) from documents d join chunks c on c.document = d.key where {where}", values)
            return int(counted.fetchone()[0])

    def matching_chunks(self, index: str, condition: Condition, limit: int) -> list[ChunkRef] | None:
        """References to all chunks that match a filter; None if there are more than ``limit``."""
        with self._reading(index) as file:
            if file is None:
                return []
            where, values = filter_to_sql(condition)
            found = file.execute(
                f"select d.id, c.position from documents d join chunks c on c.document = d.key where {where} limit ?",
                (*values, limit + 1),
            ).fetchall()
        return found if len(found) <= limit else None

    def load_chunks(
        self, index: str, refs: Iterable[ChunkRef], condition: Condition | None = None
    ) -> dict[ChunkRef, IndexedChunk]:
        """The referenced chunks that exist and match the filter."""
        found: dict[ChunkRef, IndexedChunk] = {}
        with self._reading(index) as file:
            if file is None:
                return found
            where, values = filter_to_sql(condition) if condition is not None else ("1", [])
            for document_id, position in refs:
                for row in file.execute(
                    f"select {_columns(file)} from documents d join chunks c on c.document = d.key "
                    f"where d.id = ? and c.position = ? and {where}",
                    (document_id, position, *values),
                ):
                    found[document_id, position] = _indexed_chunk(row)
        return found

    def document_chunks(
        self, index: str, document_id: str, *, first: int = 0, last: int | None = None, page: int | None = None, limit: int = -1
    ) -> list[IndexedChunk]:
        """The chunks of a document, or of one of its pages, in order, from position ``first`` to ``last``, at most ``limit`` of them."""
        with self._reading(index) as file:
            if file is None:
                return []
            rows = file.execute(
                f"select {_columns(file)} from documents d join chunks c on c.document = d.key "
                "where d.id = ? and c.position >= ? and c.position <= ? and (? is null or c.page = ?) order by c.position limit ?",
                (document_id, first, 2**62 if last is None else last, page, page, limit),
            )
            return [_indexed_chunk(row) for row in rows]

    def count_by_document(self, index: str) -> dict[str, int]:
        """Number of chunks by document id."""
        with self._reading(index) as file:
            if file is None:
                return {}
            return dict(
                file.execute("select d.id, count(c.key) from documents d left join chunks c on c.document = d.key group by d.key")
            )

    def count_chunks(self, index: str, document_id: str) -> int:
        """Number of chunks of one document."""
        with self._reading(index) as file:
            if file is None:
                return 0
            found = file.execute(
                "select count(*) from chunks c join documents d on d.key = c.document where d.id = ?", (document_id,)
            )
            return int(found.fetchone()[0])

    def contains_document(self, index: str, document_id: str) -> bool:
        """Whether the document is stored in this index."""
        with self._reading(index) as file:
            return (
                file is not None and file.execute("select 1 from documents where id = ?", (document_id,)).fetchone() is not None
            )

    def _path(self, index: str) -> Path:
        if not re.fullmatch(r"[a-z0-9_.]{1,100}", index):
            raise ValueError(f"Invalid index name: {index[:80]!r}")
        return self._folder / f"{index}.db"

    def _delete_rows(self, file: sqlite3.Connection, document_id: str, position: int | None = None) -> None:
        chunks = "select c.key, c.headings, c.text from chunks c join documents d on d.key = c.document where d.id = ?"
        values: list[Any] = [document_id]
        if position is not None:
            chunks, values = f"{chunks} and c.position = ?", [document_id, position]
        version, next_key = _version(file), _next_key(file)
        rows = file.execute(chunks, values).fetchall()
        for key, headings, text in rows:
            # The word index is contentless: to delete a row, FTS5 needs the text that was inserted.
            terms = _words(json.loads(headings), text, version)
            for table in _word_tables(key, next_key):
                file.execute(f"insert into {table}({table}, rowid, terms) values('delete', ?, ?)", (key, terms))
            file.execute("delete from chunks where key = ?", (key,))
        if rows:
            file.execute("update purge set removed_at = coalesce(removed_at, ?)", (self._clock(),))
        if position is None:
            file.execute("delete from documents where id = ?", (document_id,))

    @contextmanager
    def _writing(self, index: str, *, lock_seconds: float = LOCK_SECONDS) -> Iterator[sqlite3.Connection]:
        path = self._path(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _wrap_errors(path):
            file = sqlite3.connect(path, timeout=lock_seconds, isolation_level=None)
            try:
                # Deleted text is overwritten. A transaction stays in memory until commit, so readers wait for the commit only.
                file.executescript("pragma journal_mode=truncate; pragma secure_delete=on; pragma cache_spill=off;")
                file.execute("begin immediate")
                if file.execute("select 1 from sqlite_master where name = 'vocabulary'").fetchone() is None:
                    for statement in (
                        _words_table("words"),
                        *_SCHEMA.split(";\n"),
                        _PURGE_TABLE,
                        "insert into purge values(null, null, 0)",
                    ):
                        file.execute(statement)
                    file.execute(f"pragma user_version = {SEARCH_FORM_VERSION}")
                if not _has_confidence(file):
                    file.execute("alter table chunks add column confidence real")
                if not _has_purge_table(file):
                    file.execute(_PURGE_TABLE)
                    file.execute("insert into purge values(0, null, 0)")  # chunks may have been removed at any time before
                yield file
                file.execute("commit")
            finally:
                file.close()

    @contextmanager
    def _reading(self, index: str) -> Iterator[sqlite3.Connection | None]:
        """The open file, or None if the index does not exist. It is opened for each call, which takes under a millisecond:
        a connection kept open would go on reading a file that has been dropped."""
        path = self._path(index)
        if not path.exists():
            yield None
            return
        with _wrap_errors(path):
            file = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS, isolation_level=None)
            try:
                if file.execute("select 1 from sqlite_master where name = 'vocabulary'").fetchone() is None:
                    yield None
                else:
                    yield file
            finally:
                file.close()


@contextmanager
def _wrap_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise ReindexNeeded(
                f"Text index {path.name} is damaged ({error}). Rebuild it: enginehouse collections check --fix"
            ) from error
        raise IndexUnavailable(f"Text index {path.name} cannot be used: {error}") from error


def _has_confidence(file: sqlite3.Connection) -> bool:
    """Whether the chunks have the column that indexes of earlier versions lack until they are next written."""
    return file.execute("select 1 from pragma_table_info('chunks') where name = 'confidence'").fetchone() is not None


def _columns(file: sqlite3.Connection) -> str:
    return f"{_COLUMNS}, {'c.confidence' if _has_confidence(file) else 'null'}"


def _words_table(name: str) -> str:
    return f"""create virtual table {name} using fts5(terms, content='', tokenize="porter unicode61 remove_diacritics 2")"""


def _next_key(file: sqlite3.Connection) -> int | None:
    """The first chunk whose words the purge under way has yet to copy."""
    [next_key] = file.execute("select next_key from purge").fetchone()
    return None if next_key is None else int(next_key)


def _word_tables(key: int | None, next_key: int | None) -> tuple[str, ...]:
    """The tables that have the words of a chunk, or are to have them: both if a purge has passed it."""
    return ("words",) if key is None or next_key is None or key >= next_key else ("words", "next_words")


def _has_purge_table(file: sqlite3.Connection) -> bool:
    """Whether the file has the table that indexes of earlier versions lack until they are next written."""
    return file.execute("select 1 from sqlite_master where name = 'purge'").fetchone() is not None


def _needs_purge(file: sqlite3.Connection, removed_before: float) -> bool:
    if not _has_purge_table(file):
        return True
    found = file.execute(
        "select 1 from purge where next_key is not null or compact or removed_at < ?", (removed_before,)
    ).fetchone()
    return found is not None


def search_form(text: str) -> str:
    """Text in the form in which words are compared: the same letters look the same, however they were typed.

    Letters with accents are composed, ligatures and full-width letters are what they stand for, capitals are small, and characters
    that are not seen, such as soft hyphens, are removed.
    """
    if text.isascii():
        return text  # FTS5 ignores the case of ASCII letters itself
    folded = unicodedata.normalize("NFKC", _SOFT_BREAK.sub("", text)).translate(_INVISIBLE).casefold()
    return unicodedata.normalize("NFKC", folded)


def _version(file: sqlite3.Connection) -> int:
    return int(file.execute("pragma user_version").fetchone()[0])


def _words(headings: Sequence[str], text: str, version: int) -> str:
    words = "\n".join([*headings, text])
    return _UNSPACED_CHARACTER.sub(r" \1 ", search_form(words) if version else words)


def _match(file: sqlite3.Connection, query: str) -> str:
    """The query in FTS5 syntax: any of its terms, without the most common ones."""
    terms: dict[str, None] = {}
    for run in _TERM.findall(search_form(query) if _version(file) else unicodedata.normalize("NFC", query)):
        if _UNSPACED_CHARACTER.match(run):
            terms |= dict.fromkeys(" ".join(run[n : n + 2]) for n in range(max(1, len(run) - 1)))
        else:
            terms[run.lower()] = None
    chosen = list(terms)[:MAX_TERMS]
    [chunks] = file.execute("select count(*) from chunks").fetchone()
    if chunks >= COMMON_FROM:
        limit = int(chunks * COMMON_SHARE)
        rare = [term for term in chosen if not _is_common(file, term, limit)]
        chosen = rare or chosen
    return " OR ".join(f'"{term}"' for term in chosen)


def _is_common(file: sqlite3.Connection, term: str, limit: int) -> bool:
    found = file.execute("select count(*) from (select 1 from words where words match ? limit ?)", (f'"{term}"', limit + 1))
    return int(found.fetchone()[0]) > limit


def _indexed_chunk(row: Sequence[Any], score: float = 0.0) -> IndexedChunk:
    document_id, position, page, start, end, headings, text, confidence = row
    return IndexedChunk(
        document_id=document_id,
        position=position,
        page=page,
        start=start,
        end=end,
        headings=tuple(json.loads(headings)),
        text=text,
        score=score,
        confidence=confidence,
    )
