"""LoRA adapters in requests: ``model:adapter`` wherever a model is named, its rights, and where such jobs run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.jobs.worker_registry import WorkerRegistry
from shared.owners.store import ApiKeys
from shared.redis_connection import PREFIX
from shared.settings import Settings
from tests.conftest import JobSystem
from workers.runtime.worker_runtime import describe_process

MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def client(redis_client: redis.Redis, settings: Settings, tmp_path: Path) -> FlaskClient:
    models = tmp_path / "models.json"
    adapters = {"sql": "./adapters/sql", "legal": "org/legal@v2"}
    entries = [
        {"name": "base", "url": "org/base", "engine": "vllm", "adapters": adapters},
        {"name": "plain", "url": "org/plain"},
    ]
    models.write_text(json.dumps(entries))
    redis_client.hset(PREFIX + "models", mapping={"base": "1", "plain": "1"})
    return create_app(replace(settings, models_file=models, v1_wait_seconds=1)).test_client()


def test_an_adapter_is_named_wherever_a_model_is(client: FlaskClient, redis_client: redis.Redis, settings: Settings) -> None:
    generated = client.post("/generate", json={"prompt": "x", "model": "base:sql"}).get_json()
    assert generated["model"] == "base:sql"
    turn = client.post("/chat?wait=0", json={"message": "x", "model": "base:legal"}).get_json()
    assert turn["model"] == "base:legal"
    streamed = client.post("/v1/chat/completions", json={**MESSAGES, "model": "base:sql", "stream": True}, buffered=False)
    ids = [generated["id"], turn["id"], streamed.headers["x-job-id"]]
    streamed.close()
    jobs, _ = JobSystem(redis_client, settings, lambda queue, count: None).queries.list_jobs("local", limit=10)
    assert {job.id: job.model for job in jobs} == dict(zip(ids, ["base:sql", "base:legal", "base:sql"], strict=True))
    assert {job.queue for job in jobs} == {"gpu.base"}, "a worker of the model claims them all"
    listed = client.get("/jobs?model=base:sql").get_json()["data"]
    assert {job["id"] for job in listed} == {ids[0], ids[2]}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("base:", "There is no model 'base:'"),
        ("base:other", "Model 'base' has no adapter 'other'; there are: sql, legal"),
        ("plain:sql", "Model 'plain' has no adapter 'sql'; it has none"),
        ("nothing:sql", "There is no model 'nothing:sql'; there are: base, plain"),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/tokenize"])
def test_an_unknown_adapter_is_refused_by_name(client: FlaskClient, path: str, model: str, message: str) -> None:
    body = {"/generate": {"prompt": "x"}, "/tokenize": {"prompt": "x"}}.get(path, MESSAGES)
    answer = client.post(path, json={**body, "model": model})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "model_not_found")
    assert message in answer.get_json()["error"]["message"]
    assert client.get("/jobs").get_json()["data"] == []


def test_adapters_are_listed_after_their_model(client: FlaskClient, redis_client: redis.Redis) -> None:
    WorkerRegistry(redis_client).heartbeat(describe_process("gpu0@here", pool="gpu", queues=("gpu.base",), slots=2, model="base"))
    data = client.get("/v1/models").get_json()["data"]
    assert [(model["id"], model["parent"], model["state"]) for model in data if model["id"].startswith("base")] == [
        ("base", None, "ready"),
        ("base:sql", "base", "ready"),
        ("base:legal", "base", "ready"),
    ]
    one = client.get("/v1/models/base:sql").get_json()
    assert (one["id"], one["parent"]) == ("base:sql", "base")
    assert client.get("/v1/models/base:none").status_code == 404
    assert {model["name"]: model["adapters"] for model in client.get("/models").get_json()} == {
        "base": ["base:sql", "base:legal"],
        "plain": [],
    }


def test_a_key_for_a_model_includes_its_adapters_and_one_for_an_adapter_nothing_else(
    client: FlaskClient, redis_client: redis.Redis
) -> None:
    keys = ApiKeys(redis_client)
    keys.create("root", admin=True)
    whole, narrow = (keys.create("owner", models=[model])[1] for model in ("base", "base:sql"))

    def status(key: str, model: str) -> int:
        answer = client.post("/generate", json={"prompt": "x", "model": model}, headers={"Authorization": f"Bearer {key}"})
        return answer.status_code

    assert [status(whole, model) for model in ("base", "base:sql", "plain")] == [202, 202, 403]
    assert [status(narrow, model) for model in ("base", "base:sql", "base:legal")] == [403, 202, 403]
