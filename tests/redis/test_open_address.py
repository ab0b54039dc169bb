"""The API listens beyond this machine only when somebody has to log in, or an operator insists."""

import pytest
import redis

from cli.errors import CommandError
from cli.local.process_commands import refuse_open_address
from shared.owners.store import Owners
from shared.settings import Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::"])
def test_an_address_beyond_this_machine_wants_a_key(redis_client: redis.Redis, redis_url: str, host: str) -> None:
    settings = Settings(host=host, redis_url=redis_url)
    with pytest.raises(CommandError, match="No API key exists"):
        refuse_open_address(settings)
    refuse_open_address(Settings(host=host, redis_url=redis_url, allow_open=True))
    Owners(redis_client).create("first")
    refuse_open_address(settings)


def test_a_redis_that_cannot_be_asked_is_no_permission() -> None:
    with pytest.raises(CommandError, match="did not answer"):
        refuse_open_address(Settings(host="0.0.0.0", redis_url="redis://127.0.0.1:1/0"))
