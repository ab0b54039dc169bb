"""Lists and filters of jobs read records only, so the memory of the API does not depend on what the jobs hold."""

from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from shared.jobs.models import Status

MODEL = "gemma-3-270m"
JOBS, BYTES = 12, 1_000_000


@pytest.fixture
def large_jobs(client: FlaskClient, redis_client: redis.Redis) -> list[str]:
    """Jobs with a megabyte of prompt each. Half of them have ended with a result of the same size."""
    redis_client.hset("eh:models", MODEL, 1)
    transitions = client.application.extensions["enginehouse"].transitions
    bodies = [{"prompt": f"{number} ".ljust(BYTES, "x"), "model": MODEL} for number in range(JOBS)]
    jobs = [str(client.post("/generate", json=body).get_json()["id"]) for body in bodies]
    for number in range(JOBS // 2):
        claimed = transitions.claim(f"gpu.{MODEL}", "w", f"token{number}")
        result = {"text": "y" * BYTES, "finish_reason": "stop", "usage": {}}
        assert transitions.finish((claimed.id, claimed.attempt), Status.COMPLETED, result=result) == "ok"
    return jobs


def bytes_read(client: redis.Redis) -> int:
    stats: Any = client.info("stats")
    return int(stats["total_net_output_bytes"])


@pytest.mark.parametrize("query", ["", "status=expired", "status=completed&kind=generate", "q=nothing", "view=summary"])
def test_a_list_reads_neither_prompts_nor_results(
    client: FlaskClient, redis_client: redis.Redis, large_jobs: list[str], query: str
) -> None:
    before = bytes_read(redis_client)
    answer = client.get(f"/jobs?limit=100&{query}")
    assert answer.status_code == 200, answer.text
    assert bytes_read(redis_client) - before < BYTES / 2
    assert len(answer.data) < BYTES / 2
    assert client.get(f"/jobs/{large_jobs[0]}").get_json()["result"]["text"] == "y" * BYTES, "a job has its result"
