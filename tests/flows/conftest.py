"""Stacks shared by the tests of one process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.local.redis_server import free_port
from shared.documents.data_state import DataState
from shared.settings import Settings
from testing.chroma_server import ChromaServer
from testing.stack import QUICK, Stack
from tests.flows.shelf import Shelf


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on the echo engine that answers at once."""
    stack = Stack(tmp_path_factory.mktemp("stack"), environment=QUICK)
    try:
        yield stack.start()
        assert stack.denied_commands() == []
    finally:
        stack.kill()


@pytest.fixture(scope="package")
def slow_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose engine takes 50 ms for each token, so that there is time to interfere."""
    stack = Stack(tmp_path_factory.mktemp("slow"), token_seconds=0.05, environment=QUICK)
    try:
        yield stack.start()
        assert stack.denied_commands() == []
    finally:
        stack.kill()


@pytest.fixture
def shelf(redis_client: redis.Redis, settings: Settings, tmp_path: Path) -> Iterator[Shelf]:
    """A collection with one document, and a Chroma server of its own."""
    server = ChromaServer(tmp_path / "chroma", free_port())
    server.start()
    DataState(redis_client, settings).note_changes()
    yield Shelf(redis_client, settings, server)
    server.kill()
