"""Flower shows workers, queues and wake-ups to users with its password, and no text of any job."""

import json
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from testing.fault_rig.processes import has_word, processes_of_folder
from testing.stack import QUICK, Stack
from testing.waiting import wait_until

ADDRESSES = ("/tasks", "/workers", "/api/tasks", "/broker", "/metrics")
SECRET = "a prompt that nobody else may read"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("watched"), token_seconds=0.05, environment=QUICK | {"ENGINEHOUSE_CANARY_SECONDS": "1"})
    try:
        yield stack.start(flower=True)
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def flower(watched: Stack) -> Iterator[httpx2.Client]:
    address = json.loads((watched.data / "state.json").read_text())["flower"]
    login = ("enginehouse", (watched.data / "flower-password").read_text())
    with httpx2.Client(base_url=address, auth=login, timeout=20) as client:
        wait_until(lambda: _answers(client), "Flower answers")
        yield client


def _answers(client: httpx2.Client) -> bool:
    try:
        return bool(client.get("/api/workers").status_code == 200)
    except httpx2.HTTPError:
        return False


def test_the_log_names_the_file_with_the_password(watched: Stack, flower: httpx2.Client) -> None:
    file = watched.data / "flower-password"

    def announced() -> list[str]:
        return [line for line in watched.log.read_text().splitlines() if line.startswith("Flower (")]

    [line] = wait_until(announced, "the address of Flower is in the log")
    assert f"password in {file}" in line
    assert file.read_text() not in watched.log.read_text()
    assert f"http://127.0.0.1:{flower.base_url.port}, user enginehouse" in line


def test_each_wakeup_shows_its_queue_and_the_job_that_it_ran(watched: Stack, flower: httpx2.Client) -> None:
    job = watched.ended(watched.generate(SECRET)["id"])["id"]

    def served() -> list[dict[str, object]]:
        tasks = flower.get("/api/tasks").json().values()
        return [task for task in tasks if job in str(task["result"])]

    [wakeup] = wait_until(served, "the wake-up that ran the job")
    assert (wakeup["state"], wakeup["name"]) == ("SUCCESS", "enginehouse.generate")
    assert wakeup["args"] == job
    assert f"{job} generate completed" in str(wakeup["result"])
    assert str(wakeup["worker"]).startswith("gpu0@")
    assert SECRET not in flower.get("/api/tasks").text


def test_a_failed_job_is_a_failure_with_its_code(watched: Stack, flower: httpx2.Client) -> None:
    job = watched.ended(watched.generate("too late" * 20, timeout=1, max_tokens=64)["id"])
    assert job["status"] == "failed"

    def shown() -> list[dict[str, object]]:
        return [task for task in flower.get("/api/tasks").json().values() if task["args"] == job["id"]]

    [task] = wait_until(shown, "the task of the failed job")
    assert (task["state"], task["exception"]) == ("FAILURE", job["error"]["code"])
    assert flower.get("/api/tasks", params={"state": "FAILURE"}).json().keys() == {task["uuid"]}


def test_the_queues_are_those_of_the_models_from_the_first_look(flower: httpx2.Client) -> None:
    page = flower.get("/api/queues/length").json()
    assert {queue["name"] for queue in page["active_queues"]} == {
        *("cpu", "io", "gpu.echo", "gpu.not-started", "text.echo", "text.not-started")
    }
    assert "gpu.echo" in flower.get("/broker").text


def test_canaries_are_not_listed(watched: Stack, flower: httpx2.Client) -> None:
    # A canary is sent every quarter of a second, so some were sent before this job ended.
    job = watched.ended(watched.generate("after the canaries")["id"])["id"]
    wait_until(lambda: job in flower.get("/api/tasks").text, "the job is listed")
    assert "canary" not in flower.get("/api/tasks").text


def test_the_workers_are_listed(flower: httpx2.Client) -> None:
    wait_until(
        lambda: (
            {name.partition("@")[0] for name in flower.get("/api/workers", params={"refresh": "1"}).json()}
            == {"gpu0", "cpu", "io"}
        ),
        "all three workers are listed",
    )


def test_flower_needs_its_password(watched: Stack, flower: httpx2.Client) -> None:
    parts = urlsplit(json.loads((watched.data / "state.json").read_text())["flower"])
    assert parts.hostname == "127.0.0.1"
    with httpx2.Client(base_url=f"http://127.0.0.1:{parts.port}", timeout=20) as anonymous:
        assert [anonymous.get(path).status_code for path in ADDRESSES] == [401] * len(ADDRESSES)
    assert flower.get("/metrics").status_code == 200


def test_the_password_is_in_no_log_no_state_and_no_command_line(watched: Stack, flower: httpx2.Client) -> None:
    password = (watched.data / "flower-password").read_text()
    assert flower.get("/workers").status_code == 200
    assert password not in watched.log.read_text()
    assert password not in (watched.data / "state.json").read_text()
    for process in processes_of_folder(watched.data):
        assert not has_word(process, password)
    assert (watched.data / "flower-password").stat().st_mode & 0o777 == 0o600


def test_no_text_of_a_job_is_in_the_log_or_the_broker(watched: Stack) -> None:
    watched.ended(watched.generate(SECRET)["id"])
    assert SECRET not in watched.log.read_text()


# How Flower shows an attempt with this outcome.
STATES = {
    "completed": "SUCCESS",
    "handed_over": "SUCCESS",
    "released": "SUCCESS",
    "failed": "FAILURE",
    "retried": "RETRY",
    "cancelled": "REVOKED",
}


def test_flower_agrees_with_the_records_of_jobs(watched: Stack, flower: httpx2.Client) -> None:
    """Each attempt is one task in the state of its outcome, for jobs of every end, also if many end at once."""
    stack = watched
    jobs = [stack.generate(f"short {number}", max_tokens=2)["id"] for number in range(40)]
    failing = stack.generate("too late" * 20, timeout=1, max_tokens=64)["id"]
    cancelled = stack.submit_long("cancel me")
    wait_until(lambda: stack.job(cancelled)["status"] == "in_progress", "the job runs")
    stack.post(f"/jobs/{cancelled}/cancel", {}).raise_for_status()
    stack.client.post("/collections/flower/documents", files={"file": ("a.txt", b"a page")}).raise_for_status()
    found = stack.client.get("/collections/flower/documents").json()["data"]
    stack.ended(found[0]["job_id"])
    asked = stack.generate("what is it", collection="flower", max_tokens=2)["id"]
    searched = stack.post("/collections/flower/search", {"query": "page"}, Prefer="wait=60")
    searched.raise_for_status()
    # It ends before any worker has it, so Flower never sees it.
    with stack.paused("gpu.echo"):
        unseen = stack.generate("never claimed")["id"]
        stack.post(f"/jobs/{unseen}/cancel", {}).raise_for_status()
    ended = {job: stack.ended(job) for job in (*jobs, failing, cancelled, found[0]["job_id"], asked, unseen)}
    assert {job["status"] for job in ended.values()} == {"completed", "failed", "cancelled"}
    assert [attempt["outcome"] for attempt in ended[asked]["attempts"]] == ["handed_over", "completed"]
    assert ended[unseen]["attempts"] == []
    expected = Counter((job, STATES[attempt["outcome"]]) for job, view in ended.items() for attempt in view["attempts"])

    def shown() -> Counter[tuple[str, str]]:
        tasks = flower.get("/api/tasks").json().values()
        return Counter((str(task["args"]), str(task["state"])) for task in tasks if task["args"] in ended)

    wait_until(lambda: shown() == expected, "Flower shows each attempt once")
