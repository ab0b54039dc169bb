"""The API listens on non-loopback addresses only with API keys, or if an operator allows it."""

import pytest
import redis

from cli.errors import CommandError
from cli.local.process_commands import refuse_open_address
from shared.owners.store import ApiKeys
from shared.settings import Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::"])
def test_a_non_loopback_address_requires_an_api_key(redis_client: redis.Redis, redis_url: str, host: str) -> None:
    settings = Settings(host=host, redis_url=redis_url)
    with pytest.raises(CommandError, match="No API key exists"):
        refuse_open_address(settings)
    refuse_open_address(Settings(host=host, redis_url=redis_url, allow_open=True))
    ApiKeys(redis_client).create("first")
    refuse_open_address(settings)


def test_an_open_address_is_rejected_if_redis_is_unreachable() -> None:
    with pytest.raises(CommandError, match="did not answer"):
        refuse_open_address(Settings(host="0.0.0.0", redis_url="redis://127.0.0.1:1/0"))
