"""Model swapping: desired models from the command line, operators, waiting jobs and idle timeouts."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.process_forks import run_command
from testing.stack import QUICK, Stack
from testing.waiting import wait_until

FOUR: tuple[dict[str, Any], ...] = (
    {"name": "a", "default": True},
    {"name": "b"},
    {"name": "slow", "url": "echo:0.05", "max_tokens": 200},
    {"name": "big", "gpus": 1},
)
# Of the slow model, an answer that takes much longer than a drain: there is time to interfere with it on a busy machine too.
LONG_PROMPT = "x" * 140
ECHO = {"engine": "echo", "max_in_flight": 4, "max_tokens": 64}


def models(stack: Stack, *entries: dict[str, Any]) -> Stack:
    embedding = {"name": "hash", "url": "hash:384", "task": "embed"}
    stack.models.write_text(json.dumps([{**ECHO, "url": "echo:0", **entry} for entry in entries] + [embedding]))
    return stack


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose only worker has loaded ``a``. ``slow`` needs 50 ms per token; ``big`` needs a GPU."""
    stack = Stack(tmp_path_factory.mktemp("swapping"), environment=QUICK)
    try:
        yield models(stack, *FOUR).start()
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def on_request(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same stack, but only operators load models."""
    stack = Stack(tmp_path_factory.mktemp("on-request"), environment={**QUICK, "ENGINEHOUSE_LOAD_ON_DEMAND": "0"})
    try:
        yield models(stack, *FOUR).start()
    finally:
        stack.kill()


def gpu(stack: Stack, number: int = 0) -> dict[str, Any]:
    answer = stack.client.get("/admin/gpus")
    assert answer.status_code == 200, answer.text
    return next(dict(gpu) for gpu in answer.json()["data"] if gpu["number"] == number)


def set_desired_model(stack: Stack, model: str | None, number: int = 0) -> dict[str, Any]:
    answer = stack.client.put(f"/admin/gpus/{number}/model", json={"model": model})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def await_model(stack: Stack, model: str | None, number: int = 0) -> dict[str, Any]:
    def held() -> dict[str, Any] | None:
        seen = gpu(stack, number)
        return seen if (seen["model"], seen["state"]) == (model, "ready" if model else "unloaded") else None

    return dict(wait_until(held, f"gpu{number} holds {model}", every=0.1) or {})


def state(stack: Stack, model: str) -> str:
    return str(next(entry["state"] for entry in stack.client.get("/models").json() if entry["name"] == model))


def test_an_operator_swaps_models_without_a_restart_of_the_worker(swapping: Stack) -> None:
    worker = swapping.pid("gpu0")
    assert set_desired_model(swapping, "b")["desired_model"] == "b"
    seen = await_model(swapping, "b")
    assert (seen["requested_by"], seen["loadable_models"]) == ("operator", ["a", "b", "slow"])
    assert "needs a GPU" in seen["unloadable_models"]["big"]
    assert (state(swapping, "b"), state(swapping, "a"), state(swapping, "big")) == ("ready", "unloaded", "not_served")
    assert swapping.ended(swapping.generate("hello", model="b")["id"])["result"]["text"] == "hello"
    assert swapping.pid("gpu0") == worker


def test_a_job_loads_its_model_on_an_idle_worker(swapping: Stack) -> None:
    set_desired_model(swapping, "a")
    await_model(swapping, "a")
    job = swapping.generate("hello", model="b")
    view = wait_until(
        lambda: swapping.job(job["id"]) if swapping.job(job["id"])["waiting_for"] == "model_loading" else None,
        "the job reports that its model is loading",
        every=0.01,
    )
    assert view["status"] == "queued"
    assert swapping.ended(job["id"])["result"]["text"] == "hello"
    assert gpu(swapping)["requested_by"] == "demand"


def test_a_busy_model_is_not_unloaded_and_the_waiting_job_reports_why(swapping: Stack) -> None:
    set_desired_model(swapping, "slow")
    await_model(swapping, "slow")
    busy = [swapping.generate("the quick brown fox jumps over the lazy dog" * 2, model="slow")["id"] for _ in range(6)]
    waiting = swapping.generate("hello", model="a")["id"]
    wait_until(lambda: swapping.job(waiting)["waiting_for"] == "gpu_busy", "the job reports that the GPU is busy")
    for job in busy:
        assert [attempt["outcome"] for attempt in swapping.ended(job)["attempts"]] == ["completed"]
    done = swapping.ended(waiting)
    assert done["status"] == "completed"
    assert done["started_at"] >= max(swapping.job(job)["ended_at"] for job in busy)


def test_an_operators_swap_drains_running_jobs_and_requeues_the_rest(on_request: Stack) -> None:
    set_desired_model(on_request, "slow")
    await_model(on_request, "slow")
    short = on_request.generate("twelve bytes", model="slow")["id"]
    long = on_request.generate(LONG_PROMPT, model="slow")["id"]
    wait_until(lambda: all(on_request.job(job)["started_at"] for job in (short, long)), "both have started")
    set_desired_model(on_request, "a")
    await_model(on_request, "a")
    assert [attempt["outcome"] for attempt in on_request.ended(short)["attempts"]] == ["completed"]
    view = on_request.job(long)
    assert (view["status"], view["waiting_for"]) == ("queued", "model_not_loaded")
    set_desired_model(on_request, "slow")
    assert [attempt["outcome"] for attempt in on_request.ended(long)["attempts"]] == ["released", "completed"]


@pytest.mark.parametrize("when", ["draining", "between"])
def test_a_worker_killed_during_a_swap_loads_the_desired_model(on_request: Stack, when: str) -> None:
    set_desired_model(on_request, "slow")
    await_model(on_request, "slow")
    jobs = [on_request.generate(LONG_PROMPT, model="slow")["id"] for _ in range(2)]
    wait_until(lambda: all(on_request.job(job)["status"] == "in_progress" for job in jobs), "both run")
    set_desired_model(on_request, "b")
    if when == "draining":
        wait_until(lambda: gpu(on_request)["state"] == "draining", "the worker drains", every=0.01)
    else:
        wait_until(lambda: gpu(on_request)["state"] == "away", "the worker is between two models", every=0.01)
    os.kill(on_request.pid("gpu0"), signal.SIGKILL)
    assert await_model(on_request, "b")["requested_by"] == "operator"
    set_desired_model(on_request, "slow")
    for job in jobs:
        view = on_request.ended(job)
        assert (view["status"], view["result"]["text"]) == ("completed", LONG_PROMPT)
        outcome = "lost" if when == "draining" else "released"
        assert [attempt["outcome"] for attempt in view["attempts"]] == [outcome, "completed"]


def test_a_job_reloads_a_model_that_was_unloaded(swapping: Stack) -> None:
    set_desired_model(swapping, None)
    await_model(swapping, None)
    assert swapping.client.get("/health/ready").status_code == 200, "the default model can be loaded"
    assert swapping.ended(swapping.generate("back")["id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("number", "body", "status", "code"),
    [
        ("0", {"model": "nope"}, 404, "model_not_found"),
        ("0", {"model": "hash"}, 422, "invalid_value"),
        ("0", {"model": "big"}, 409, "model_does_not_fit"),
        ("7", {"model": "a"}, 404, "gpu_not_found"),
        ("0", {}, 422, "invalid_value"),
    ],
)
def test_an_invalid_desired_model_is_rejected(swapping: Stack, number: str, body: Any, status: int, code: str) -> None:
    before = gpu(swapping)["desired_model"]
    answer = swapping.client.put(f"/admin/gpus/{number}/model", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert gpu(swapping)["desired_model"] == before


def command(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    options = ["--data", str(stack.data), "--models", str(stack.models)]
    return run_command(["models", *words, *options], environment=os.environ)


def test_the_command_loads_and_unloads(swapping: Stack) -> None:
    done = command(swapping, "load", "b", "--gpu", "0")
    assert (done.returncode, done.stderr.count("failed")) == (0, 0), done.stderr
    assert done.stdout.endswith(" has loaded b\n")
    rows = {row["name"]: row for row in swapping.client.get("/models").json()}
    assert [rows[name]["workers"] for name in ("a", "b")] == [0, 1]
    assert rows["b"]["state"] == "ready"
    assert command(swapping, "load", "a").stdout.endswith(" has loaded a\n"), "the worker was idle"
    assert command(swapping, "unload", "a").stdout.endswith(" has unloaded its model\n")
    for words, why in (
        (("unload", "a"), "is not loaded on any worker"),
        (("load", "big"), "needs a GPU, and this worker has none"),
        (("load", "nope"), "no model 'nope'"),
        (("load", "a", "--gpu", "9"), "There is no gpu worker 9; there are: gpu0@"),
        (("load", "hash"), "is an embedding model"),
    ):
        done = command(swapping, *words)
        assert done.returncode == 2
        assert why in done.stderr


@pytest.mark.slow_fault
def test_each_model_gets_a_worker_and_idle_models_are_unloaded(tmp_path: Path) -> None:
    stack = Stack(tmp_path, environment=QUICK)
    models(stack, {"name": "a", "default": True, "load": True}, {"name": "b", "load": True, "keep_alive": 8}, {"name": "c"})
    try:
        stack.start()
        # Before ``b`` has been idle for so long that it is unloaded.
        assert {gpu(stack, 0)["desired_model"], gpu(stack, 1)["desired_model"]} == {"a", "b"}
        assert stack.ended(stack.generate("one", model="b")["id"])["status"] == "completed"
        await_model(stack, None, number=1)
        assert gpu(stack, 1)["requested_by"] == "idle"
        assert stack.ended(stack.generate("c", model="c")["id"])["attempts"][0]["worker"].startswith("gpu1@")
        assert gpu(stack, 0)["model"] == "a", "the empty worker was chosen first"
        assert stack.stop() == 0
        stack.start("--model", "c")
        assert [entry["desired_model"] for entry in stack.client.get("/admin/gpus").json()["data"]] == ["c"], (
            "a new start discards earlier assignments"
        )
    finally:
        stack.kill()


@pytest.mark.slow_fault
def test_jobs_fail_if_no_worker_can_load_their_model(tmp_path: Path) -> None:
    stack = Stack(tmp_path, environment={**QUICK, "ENGINEHOUSE_UNSCHEDULABLE_SECONDS": "2"})
    models(stack, {"name": "a", "default": True}, {"name": "b"})
    try:
        stack.start("--model", "b")
        set_desired_model(stack, "a")
        await_model(stack, "a")
        assert stack.stop() == 0
        models(stack, {"name": "a", "default": True}, {"name": "b", "gpus": 1})
        stack.start()
        view = stack.ended(stack.generate("x", model="b")["id"])
        assert (view["status"], view["error"]["code"]) == ("failed", "model_not_served")
    finally:
        stack.kill()
