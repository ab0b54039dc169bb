"""Stacks shared by the tests of one process."""

from collections.abc import Iterator

import pytest

from testing.stack import QUICK, Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on the echo engine that answers at once."""
    stack = Stack(tmp_path_factory.mktemp("stack"), environment=QUICK)
    try:
        yield stack.start()
        assert stack.denied_commands() == []
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def slow_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose engine takes 50 ms for each token, so that there is time to interfere."""
    stack = Stack(tmp_path_factory.mktemp("slow"), token_seconds=0.05, environment=QUICK)
    try:
        yield stack.start()
        assert stack.denied_commands() == []
    finally:
        stack.kill()
