"""Index health: the flag of a hung index is cleared once, and expires."""

import redis

from shared.documents.index_health import KEY, clear_silence, is_silent, report_silence


def test_the_flag_is_visible_to_all_and_cleared_by_one_process(redis_client: redis.Redis) -> None:
    assert not is_silent(redis_client)
    assert not clear_silence(redis_client)
    report_silence(redis_client)
    report_silence(redis_client)
    assert is_silent(redis_client)
    assert redis_client.ttl(KEY) > 0
    assert clear_silence(redis_client)
    assert not clear_silence(redis_client)
    assert not is_silent(redis_client)
