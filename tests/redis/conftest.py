"""A fault proxy in front of this test process's Redis."""

import re
from collections.abc import Iterator

import pytest

from testing.fault_rig.proxy import Proxy


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    proxy = Proxy(int(redis_url.rpartition(":")[2].partition("/")[0]))
    yield proxy
    proxy.close()


@pytest.fixture
def proxied_url(redis_url: str, proxy: Proxy) -> str:
    """The URL of Redis through the proxy."""
    return re.sub(r":\d+(/|$)", f":{proxy.port}\\1", redis_url)
