"""One stack for all tests of ``/v1``, whose engine takes some milliseconds per token, one with a real model, and OpenAI's own client."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from shared.errors import ModelUnavailable
from shared.models.catalogue import load_catalogue
from shared.settings_sources import from_environment
from testing.missing_services import missing_service
from testing.stack import HASH, MINILM, QUICK, Stack

TOKEN_SECONDS = 0.004
# Loading the model takes twenty seconds, and minutes on a busy machine.
MODEL_SECONDS = 400
# On such a machine, a process that loads a model may show no sign of life for as long as a short lease lasts, and would be killed.
PATIENT = {"ENGINEHOUSE_LEASE_SECONDS": "30", "ENGINEHOUSE_RENEW_SECONDS": "5"}
# With this many tokens to say, an answer lasts for half a minute.
LONG = {"max_tokens": 8000, "messages": [{"role": "user", "content": "word " * 1400}]}


@pytest.fixture(scope="package")
def v1_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("v1"), token_seconds=TOKEN_SECONDS, environment=QUICK)
    try:
        yield stack.start()
        assert stack.denied_commands() == []
    finally:
        stack.kill()


@pytest.fixture(scope="package")
def client(v1_stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{v1_stack.url}/v1", api_key="anything", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The default model's weights and tokenizer."""
    from workers.gpu.weights import prepare_model

    settings = from_environment(os.environ)
    try:
        return prepare_model(load_catalogue(settings.models_file).default(), settings.prepared_models.resolve(), lambda *_: None)
    except ModelUnavailable as error:
        missing_service(str(error))
        raise


@pytest.fixture(scope="package")
def model_stack(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with the default model, in float32, so that other requests of a batch do not change an answer, and a model for embeddings."""
    stack = Stack(tmp_path_factory.mktemp("model"), environment=QUICK | PATIENT)
    template = "{{ bos_token }}{% if tools %}{{ tools | tojson }}\n{% endif %}{% for message in messages %}{{ message.content }}\n{% endfor %}"
    entry = {"name": "gemma", "url": str(model_folder), "dtype": "float32", "default": True, "chat_template": template}
    stack.models.write_text(json.dumps([entry | {"max_context": 2048, "max_in_flight": 16, "max_tokens": 64}, HASH, MINILM]))
    try:
        yield stack.start(seconds=MODEL_SECONDS)
        assert stack.denied_commands() == []
    finally:
        stack.kill()


def user(text: Any) -> list[Any]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]
