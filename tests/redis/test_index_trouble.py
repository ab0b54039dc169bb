"""Index health: the flag of a hung index is cleared once, and expires."""

import redis

from shared.documents.index_health import KEY, is_silent, note_silence, take_note


def test_the_flag_is_visible_to_all_and_cleared_by_one_process(redis_client: redis.Redis) -> None:
    assert not is_silent(redis_client)
    assert not take_note(redis_client)
    note_silence(redis_client)
    note_silence(redis_client)
    assert is_silent(redis_client)
    assert redis_client.ttl(KEY) > 0
    assert take_note(redis_client)
    assert not take_note(redis_client)
    assert not is_silent(redis_client)
