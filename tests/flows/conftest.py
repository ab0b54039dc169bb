"""Stacks shared by the tests of one process."""

from collections.abc import Iterator

import pytest

from testing.stack import Stack

# The tests wait for leases and janitors, so both are quicker than in service.
QUICK = {
    "ENGINEHOUSE_LEASE_SECONDS": "4",
    "ENGINEHOUSE_RENEW_SECONDS": "1",
    "ENGINEHOUSE_MAINTENANCE_SECONDS": "0.2",
    "ENGINEHOUSE_CPU_WORKERS": "1",
    "ENGINEHOUSE_DRAIN_SECONDS": "2",
    "ENGINEHOUSE_WEBHOOK_ALLOW": "127.0.0.0/8",
}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on the echo engine that answers at once."""
    stack = Stack(tmp_path_factory.mktemp("stack"), environment=QUICK)
    try:
        yield stack.start()
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def slow_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose engine takes 50 ms for each token, so that there is time to interfere."""
    stack = Stack(tmp_path_factory.mktemp("slow"), token_seconds=0.05, environment=QUICK)
    try:
        yield stack.start()
    finally:
        stack.kill()
