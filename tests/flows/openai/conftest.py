"""One stack for all tests of ``/v1``, whose engine takes some milliseconds per token, and OpenAI's own client."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from testing.stack import QUICK, Stack

TOKEN_SECONDS = 0.004
# With this many tokens to say, an answer lasts for half a minute.
LONG = {"max_tokens": 8000, "messages": [{"role": "user", "content": "word " * 1400}]}


@pytest.fixture(scope="session")
def v1_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("v1"), token_seconds=TOKEN_SECONDS, environment=QUICK)
    try:
        yield stack.start()
        assert stack.denied_commands() == []
    finally:
        stack.kill()


@pytest.fixture(scope="session")
def client(v1_stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{v1_stack.url}/v1", api_key="anything", max_retries=0, timeout=60) as client:
        yield client


def user(text: Any) -> list[Any]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]
