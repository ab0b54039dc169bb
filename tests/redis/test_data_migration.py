"""The migration of data: one process does it, and one that dies in it is replaced."""

import threading

import pytest
import redis

from shared.documents.data_state import DATA_VERSION, KEY, MIGRATION_LOCK, MIGRATION_SECONDS, DataState
from shared.settings import Settings


def test_one_of_many_processes_migrates(redis_client: redis.Redis, settings: Settings) -> None:
    redis_client.hset(KEY, mapping={"id": "a", "version": 1})
    migrations, started, done = [], threading.Event(), threading.Event()

    def migrate() -> int:
        migrations.append(threading.get_ident())
        started.set()
        assert done.wait(30)
        return 0

    first = threading.Thread(target=DataState(redis_client, settings, index_jobs=migrate).note_changes)
    first.start()
    assert started.wait(30)
    assert MIGRATION_SECONDS - 60 < redis_client.ttl(MIGRATION_LOCK) <= MIGRATION_SECONDS
    for _ in range(4):
        DataState(redis_client, settings, index_jobs=migrate).note_changes()
    assert (len(migrations), redis_client.hget(KEY, "version")) == (1, "1"), "the others go on while one migrates"
    done.set()
    first.join(30)
    assert redis_client.hget(KEY, "version") == str(DATA_VERSION)
    DataState(redis_client, settings, index_jobs=migrate).note_changes()
    assert len(migrations) == 1
    assert not redis_client.exists(MIGRATION_LOCK)


def test_a_migration_that_failed_or_took_too_long_is_done_by_another(redis_client: redis.Redis, settings: Settings) -> None:
    redis_client.hset(KEY, mapping={"id": "a", "version": 1})

    def fail() -> int:
        raise redis.ConnectionError("gone")

    with pytest.raises(redis.ConnectionError):
        DataState(redis_client, settings, index_jobs=fail).note_changes()
    migrated = []

    def migrate_slowly() -> int:
        # As if its time had passed: another process has begun again, and holds the lock.
        redis_client.set(MIGRATION_LOCK, "another", ex=60)
        migrated.append(1)
        return 1

    DataState(redis_client, settings, index_jobs=migrate_slowly).note_changes()
    assert (migrated, redis_client.get(MIGRATION_LOCK)) == ([1], "another"), "it does not release the lock of another"
    assert redis_client.hget(KEY, "version") == str(DATA_VERSION)
