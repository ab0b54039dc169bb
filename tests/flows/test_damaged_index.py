"""A damaged or removed vector database: the server notices, starts again with an empty one, and the check and a reindex repair it.

The server is a real one, and its files are overwritten while it runs.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.documents.index_health import list_problems
from shared.errors import IndexUnavailable, ReindexNeeded
from testing.waiting import wait_until
from tests.flows.shelf import Shelf
from workers.index.chroma_server import DATABASE
from workers.io.index_monitor import IndexMonitor


def overwrite(folder: Path) -> None:
    """Write noise over every second page, from the second on."""
    path = folder / DATABASE
    with path.open("r+b") as file:
        for offset in range(4096, path.stat().st_size, 2 * 4096):
            file.seek(offset)
            file.write(os.urandom(4096))


def truncate(folder: Path) -> None:
    os.truncate(folder / DATABASE, 8192)


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("damage", "running"),
    [(overwrite, True), (remove, True), (truncate, False)],
    ids=["overwritten while it runs", "removed while it runs", "truncated while it is stopped"],
)
def test_the_server_replaces_a_damaged_database(shelf: Shelf, damage: Callable[[Path], None], running: bool) -> None:
    chroma = shelf.chroma
    if not running:
        chroma.kill()
    damage(chroma.folder)
    if running:
        # A removed database is still readable, so only a write shows that it is gone.
        with pytest.raises(IndexUnavailable):
            shelf.put()
        wait_until(shelf.answers, "the server has started again")
    else:
        chroma.start()
    assert (chroma.folder / "damaged" / DATABASE).exists() == (damage is not remove)
    with pytest.raises(ReindexNeeded, match="vectors of the index of collection 'shelf' are missing"):
        shelf.search("vector")
    assert shelf.search("keyword") == 1
    assert shelf.check() == {shelf.document: "pages_lost"}, "this document has no pages to be indexed from"
    IndexMonitor(shelf.client, shelf.documents, shelf.index).check_collections()
    assert set(list_problems(shelf.client)) == {shelf.collection.id}
    shelf.put()
    assert shelf.search("hybrid") == 1
    IndexMonitor(shelf.client, shelf.documents, shelf.index).check_collections()
    assert list_problems(shelf.client) == {}


def test_a_damaged_or_missing_text_index_is_no_empty_result(shelf: Shelf) -> None:
    path = shelf.settings.text_index_dir / f"{shelf.collection.index}.db"
    content = path.read_bytes()
    path.write_bytes(b"no database" * 1000)
    for mode in ("keyword", "hybrid", "vector"):
        with pytest.raises(ReindexNeeded, match="damaged"):
            shelf.search(mode)
    path.unlink()
    for mode in ("keyword", "hybrid", "vector"):
        with pytest.raises(ReindexNeeded, match="text of the index of collection 'shelf' is missing"):
            shelf.search(mode)
    path.write_bytes(content)
    assert shelf.search("vector") == 1


def test_an_index_without_documents_is_empty_and_needs_no_reindex(shelf: Shelf) -> None:
    shelf.documents.remove(shelf.document, shelf.collection.id)
    shelf.index.drop_index(shelf.collection.index)
    assert shelf.search("hybrid") == 0
