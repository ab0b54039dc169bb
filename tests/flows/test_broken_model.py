"""A model that cannot be loaded: the API and the log report the reason, and its jobs fail."""

import json
from collections.abc import Iterator

import httpx2
import pytest

from testing.stack import QUICK, Stack, models
from testing.waiting import wait_until


@pytest.fixture
def broken_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("broken")
    stack = Stack(folder, environment=QUICK)
    entries = models(0.0)
    entries[0] = {"name": "lost", "url": str(folder / "no-such-folder"), "default": True}
    stack.models.write_text(json.dumps(entries))
    stack.launch()
    try:
        yield stack
    finally:
        stack.kill()


def test_a_model_that_cannot_be_loaded_fails_its_jobs_with_the_reason(broken_stack: Stack) -> None:
    def failed() -> bool:
        try:
            return bool(broken_stack.client.get("/models").json()[0]["state"] == "failed")
        except httpx2.HTTPError:
            return False

    wait_until(failed, "the model is reported as failed", every=0.2)
    [model, *_] = broken_stack.client.get("/models").json()
    assert "no-such-folder" in model["reason"]
    health = broken_stack.client.get("/health/ready")
    assert health.status_code == 503
    assert any("lost" in reason and "no-such-folder" in reason for reason in health.json()["waiting_for"])
    job = broken_stack.ended(broken_stack.generate("hello")["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "model_unavailable")
    [model, *_] = broken_stack.client.get("/models").json()
    assert job["error"]["message"] == (
        f"Model lost could not be loaded: {model['reason']} Submit the job again when that is corrected."
    )

    def log() -> str:
        return broken_stack.log.read_text()

    wait_until(lambda: "no-such-folder" in log(), "the log has the reason", every=0.2)
    explanation = "Model lost failed to load: the folder"
    wait_until(lambda: explanation in log(), "the log says what to do", every=0.2)
    assert "tries again after 30 s" in log()
    assert "`enginehouse up --model NAME`" in log()
    wait_until(lambda: "waiting for: model lost (failed to load)" in log().splitlines(), "only the model is missing", every=0.2)
    assert log().count(explanation) == 1
    assert "(loading 100%: )" not in log()
