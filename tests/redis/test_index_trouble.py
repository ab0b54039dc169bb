"""The workers' note that the index is silent is taken once, and does not stay for ever."""

import redis

from shared.documents.index_health import KEY, is_silent, note_silence, take_note


def test_a_note_is_seen_by_all_and_taken_by_one(redis_client: redis.Redis) -> None:
    assert not is_silent(redis_client)
    assert not take_note(redis_client)
    note_silence(redis_client)
    note_silence(redis_client)
    assert is_silent(redis_client)
    assert redis_client.ttl(KEY) > 0
    assert take_note(redis_client)
    assert not take_note(redis_client)
    assert not is_silent(redis_client)
