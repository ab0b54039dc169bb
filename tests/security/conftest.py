"""The shared stack without keys, and an application in this process on the test's own Redis."""

from collections.abc import Callable

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.owners.store import ApiKeys
from shared.settings import Settings
from tests.flows.conftest import stack

__all__ = ["stack"]


@pytest.fixture
def client(settings: Settings, redis_client: redis.Redis) -> FlaskClient:
    """The application, without keys."""
    return create_app(settings).test_client()


@pytest.fixture
def key_of(redis_client: redis.Redis) -> Callable[[str], dict[str, str]]:
    """Creates a key for an owner, as request headers."""
    keys = ApiKeys(redis_client)
    return lambda owner: {"Authorization": f"Bearer {keys.create(owner)[1]}"}
