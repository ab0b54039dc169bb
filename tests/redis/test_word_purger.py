"""Words of deleted chunks are purged in time, in short rounds, by one worker."""

import itertools
from pathlib import Path

import pytest
import redis

from shared.documents.text_index import DocumentAttributes, TextIndex
from workers.cpu.chunking import Chunk
from workers.io.word_purger import CHECK_SECONDS, ROUND_SECONDS, WordPurger

SECONDS, REMOVED_AT, NOW = 86_400.0, 1_000_000.0, 50.0


class Purge:
    """An index from which a chunk was removed at ``REMOVED_AT``."""

    def __init__(self, client: redis.Redis, folder: Path) -> None:
        self.client, self.folder = client, folder
        self.texts = TextIndex(folder, clock=lambda: REMOVED_AT)
        self.unix_time = REMOVED_AT + SECONDS + 1
        self.file = self.put_and_remove("col_one")

    def put_and_remove(self, index: str) -> Path:
        """Put a chunk and remove it; return the file of the index."""
        about = DocumentAttributes(id="a", name="a.txt", media_type="text/plain", size=1, created_at=0.0, metadata={})
        self.texts.put_document(index, about, [Chunk(0, 1, 0, 6, "quokka", ())])
        self.texts.remove_document(index, "a")
        return self.folder / f"{index}.db"

    def worker(self) -> WordPurger:
        return WordPurger(self.client, self.texts, SECONDS, NOW, clock=lambda: self.unix_time, timer=lambda: 0.0)

    def is_done(self) -> bool:
        return not has_words(self.file)


def has_words(file: Path) -> bool:
    return b"quokka" in file.read_bytes()


@pytest.fixture
def purge(redis_client: redis.Redis, tmp_path: Path) -> Purge:
    return Purge(redis_client, tmp_path)


def test_words_are_purged_when_their_time_is_over(purge: Purge) -> None:
    purge.unix_time = REMOVED_AT + SECONDS
    worker = purge.worker()
    worker.run_once(NOW + CHECK_SECONDS)
    assert not purge.is_done()
    purge.client.flushdb()  # the turn has ended
    purge.unix_time += 1
    worker.run_once(NOW + 2 * CHECK_SECONDS - 1)
    assert not purge.is_done(), "it looks every ten minutes"
    worker.run_once(NOW + 2 * CHECK_SECONDS)
    assert purge.is_done()


def test_one_worker_purges_at_a_time(purge: Purge) -> None:
    first, second = purge.worker(), purge.worker()
    purge.unix_time = REMOVED_AT
    first.run_once(NOW + CHECK_SECONDS)
    purge.unix_time = REMOVED_AT + SECONDS + 1
    second.run_once(NOW + CHECK_SECONDS)
    assert not purge.is_done()


def test_a_round_is_short_and_the_next_one_continues(purge: Purge) -> None:
    another = purge.put_and_remove("col_two")
    times = itertools.count(0.0, 0.6 * ROUND_SECONDS)
    worker = WordPurger(purge.client, purge.texts, 0.0, NOW, timer=lambda: next(times))
    worker.run_once(NOW + CHECK_SECONDS)
    assert sorted([has_words(purge.file), has_words(another)]) == [False, True], "a round of one step"
    for n in range(1, 4):
        worker.run_once(NOW + CHECK_SECONDS + n)
    assert [has_words(purge.file), has_words(another)] == [False, False]


def test_a_damaged_index_does_not_keep_others_from_their_purge(purge: Purge) -> None:
    (purge.file.parent / "col_zzz.db").write_bytes(b"no database" * 1000)
    purge.worker().run_once(NOW + CHECK_SECONDS)
    assert purge.is_done()
