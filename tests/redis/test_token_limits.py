"""Limits of tokens and of running jobs: exact with many clients, settled when jobs end, for owners, API keys and end users."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from api.schemas.responses import Owner
from cli.admin.owners import limit_key
from shared.errors import BudgetSpent, InvalidValue, NotFound, TooMany
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.jobs.usage import Usage
from shared.owners.limits import KeyLimits, OwnerLimits
from shared.owners.store import ApiKeys
from shared.settings import Settings
from tests.conftest import Clock, JobSystem

CLIENTS = 50
MODEL = "gemma-3-270m"
HOUR = 3600


def submit(system: JobSystem, tokens: int | None = 10, *, kind: str = "generate", owner: str = "ada", **fields: Any) -> str:
    submission = Submission(kind=kind, queue="q", spec={}, owner=owner, tokens=tokens, **fields)
    return system.submitter.submit_job(submission).id


def refusal(system: JobSystem, tokens: int | None = 10, **fields: Any) -> TooMany:
    with pytest.raises(TooMany) as refused:
        submit(system, tokens, **fields)
    return refused.value


def claim(system: JobSystem, token: str, queue: str = "q") -> str | None:
    job = system.transitions.claim_for_slot(queue, "w", token, slots=100, reserved=0)
    return job if isinstance(job, str) or job is None else job.id


def finish(system: JobSystem, usage: Usage, status: Any = Status.COMPLETED) -> None:
    """Run the next job to its end."""
    job = system.transitions.claim("q", "w", f"token {usage} {system.clock}")
    system.client.delete(f"eh:claim:token {usage} {system.clock}")
    assert job is not None
    assert system.transitions.finish((job.id, job.attempt), status, result={}, usage=usage) == "ok"


@pytest.mark.parametrize(
    ("quota", "code"),
    [("tokens_per_minute", "rate_limited"), ("tokens_per_day", "quota_exceeded"), ("tokens_per_month", "quota_exceeded")],
)
def test_a_limit_is_exact_with_many_clients(system: JobSystem, quota: str, code: str) -> None:
    OwnerLimits(system.client).set_limits("ada", {quota: 100})

    def call(_: int) -> str:
        try:
            submit(system)
        except TooMany as refused:
            return refused.code
        return "accepted"

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(call, range(CLIENTS)))
    assert answers.count("accepted") == 10
    assert answers.count(code) == CLIENTS - 10
    submit(system, owner="bob")


def test_a_refusal_names_the_holder_of_the_rate_that_was_used_up(system: JobSystem) -> None:
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_minute": 1000, "end_user_tokens_per_minute": 50})
    KeyLimits(system.client).set_limits("key_1", {"tokens_per_minute": 100})
    submit(system, 50, end_user="vic", key="key_1")
    assert refusal(system, 20, end_user="vic", key="key_1").details["of"] == "end_user"
    submit(system, 50, key="key_1")
    assert refusal(system, 20, key="key_1").details["of"] == "api_key"
    submit(system, 900)
    assert refusal(system, 20).details["of"] == "owner"


def test_the_end_of_a_job_replaces_what_it_reserved_by_what_it_used(system: JobSystem, clock: Clock) -> None:
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_minute": 60, "tokens_per_day": 100})
    submit(system, 60)
    assert refusal(system, 1).details["quota"] == "tokens_per_minute"
    finish(system, Usage(prompt_tokens=5, cached_tokens=5, completion_tokens=15, gpu_ms=7))
    submit(system, 40)
    refused = refusal(system, 1)
    assert (refused.code, refused.retry_after) == ("rate_limited", 1)
    clock.advance(61)
    assert refusal(system, 41).details["left"] == 40, "20 were used and 40 are reserved of 100"
    submit(system, 40)


def test_a_job_that_used_more_than_it_reserved_is_charged_for_it(system: JobSystem, clock: Clock) -> None:
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_minute": 600, "tokens_per_month": 2000})
    submit(system, None, kind="ingest")
    finish(system, Usage(embedding_tokens=1800, pages=3))
    assert refusal(system, 1).retry_after == 121, "10 tokens a second"
    clock.advance(121)
    assert refusal(system, 201).code == "quota_exceeded"
    clock.advance(20)
    submit(system, 200)
    submit(system, None, kind="delete")


@pytest.mark.parametrize("end", ["cancelled", "failed", "expired"])
def test_a_job_that_used_nothing_gives_its_tokens_back(system: JobSystem, clock: Clock, end: str) -> None:
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_day": 10})
    job = submit(system, 10, expires_ms=1000)
    if end == "cancelled":
        system.transitions.cancel(job, "ada")
        system.transitions.cancel(job, "ada")
    elif end == "failed":
        finish(system, Usage(), Status.FAILED)
    else:
        clock.advance(2)
        system.maintenance.reap(leases=True)
    submit(system, 10)
    assert refusal(system, 1).code == "quota_exceeded"


def test_budgets_start_again_with_the_day_and_the_month(system: JobSystem, clock: Clock) -> None:
    # The clock starts on 2027-01-15 at 08:00 UTC.
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_day": 10, "tokens_per_month": 20})
    submit(system)
    refused = refusal(system, 1)
    assert isinstance(refused, BudgetSpent)
    assert (refused.type, refused.should_retry, refused.retry_after) == ("insufficient_quota", False, 16 * HOUR)
    assert refused.details == {"quota": "tokens_per_day", "limit": 10, "of": "owner", "left": 0}
    clock.advance(16 * HOUR)
    submit(system)
    clock.advance(24 * HOUR)
    refused = refusal(system, 1)
    assert (refused.details["quota"], refused.retry_after) == ("tokens_per_month", 15 * 24 * HOUR)
    clock.advance(15 * 24 * HOUR)
    submit(system)


def test_keys_and_end_users_have_limits_besides_their_owners(system: JobSystem) -> None:
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_day": 100, "end_user_tokens_per_day": 30})
    KeyLimits(system.client).set_limits("key_1", {"tokens_per_day": 40})
    submit(system, 30, end_user="uma", key="key_1")
    assert refusal(system, 1, end_user="uma", key="key_2").details["of"] == "end_user"
    assert refusal(system, 11, end_user="vic", key="key_1").details["of"] == "api_key"
    submit(system, 30, end_user="vic", key="key_2")
    assert refusal(system, 41, key="key_2").details["of"] == "owner"
    submit(system, 40, key="key_2")


def test_a_new_budget_counts_what_was_used_before(system: JobSystem) -> None:
    for user in ("uma", "vic", ""):
        submit(system, end_user=user)
        finish(system, Usage(prompt_tokens=4, completion_tokens=3))
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_month": 25, "end_user_tokens_per_day": 8})
    assert refusal(system, 2, end_user="uma").details["left"] == 1
    assert refusal(system, 5).details["left"] == 4
    submit(system, 4)


def test_jobs_of_a_request_are_accepted_together_or_not_at_all(system: JobSystem) -> None:
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_day": 25})
    jobs = [Submission(kind="generate", queue="q", spec={}, owner="ada", tokens=10) for _ in range(3)]
    with pytest.raises(BudgetSpent):
        system.submitter.submit_jobs(jobs)
    system.submitter.submit_jobs(jobs[:2])
    assert refusal(system, 6).details["left"] == 5


def test_a_job_without_a_limit_ends_that_was_submitted_with_one_that_has_one(system: JobSystem) -> None:
    OwnerLimits(system.client).set_limits("ada", {"end_user_tokens_per_day": 100})
    fields: dict[str, Any] = {"kind": "generate", "queue": "q", "spec": {}, "owner": "ada", "tokens": 10}
    system.submitter.submit_jobs([Submission(**fields), Submission(**fields, end_user="uma")])
    finish(system, Usage(prompt_tokens=1))
    finish(system, Usage(prompt_tokens=2))
    assert [job.status for job in system.queries.get_jobs(system.client.zrange("eh:owner:ada:jobs", 0, -1))] == [
        Status.COMPLETED
    ] * 2


def test_jobs_beyond_the_number_that_may_run_wait_and_let_others_pass(system: JobSystem) -> None:
    OwnerLimits(system.client).set_limits("ada", {"running_jobs": 2})
    mine = [submit(system) for _ in range(3)]
    other_queue = system.submitter.submit_job(Submission(kind="generate", queue="other", spec={}, owner="ada")).id
    theirs = [submit(system, owner="bob") for _ in range(2)]
    claimed = {claim(system, f"t{number}") for number in range(4)}
    assert claimed == {*mine[:2], *theirs}
    assert claim(system, "t5") == "held_back"
    assert claim(system, "t6", "other") == "held_back"
    assert system.transitions.finish((mine[0], 1), Status.COMPLETED, result={}) == "ok"
    assert claim(system, "t7", "other") == other_queue
    assert claim(system, "t8") == "held_back"
    OwnerLimits(system.client).set_limits("ada", {"running_jobs": None})
    assert claim(system, "t9") == mine[2]


def test_jobs_of_an_end_user_beyond_the_number_that_may_run_wait(system: JobSystem) -> None:
    OwnerLimits(system.client).set_limits("ada", {"end_user_running_jobs": 1, "end_user_queued_jobs": 2})
    first, second = submit(system, end_user="uma"), submit(system, end_user="uma")
    refused = refusal(system, end_user="uma")
    assert (refused.code, refused.param, refused.details["limit"]) == ("user_full", "end_user", 2)
    other, nobody = submit(system, end_user="vic"), submit(system)
    assert {claim(system, f"t{number}") for number in range(4)} == {first, other, nobody, "held_back"}
    assert system.transitions.finish((first, 1), Status.FAILED, error={"code": "engine_fault", "message": ""}) == "ok"
    assert claim(system, "t5") == second


@pytest.fixture
def client(settings: Settings, redis_client: redis.Redis) -> FlaskClient:
    redis_client.hset("eh:models", MODEL, "1")
    return create_app(settings).test_client()


def test_responses_say_what_is_left_of_the_token_rate(client: FlaskClient, redis_client: redis.Redis) -> None:
    key, secret = ApiKeys(redis_client).create("ada")
    KeyLimits(redis_client).set_limits(key.id, {"tokens_per_minute": 600})
    headers = {"Authorization": f"Bearer {secret}"}
    body = {"prompt": "x" * 40, "max_tokens": 290, "timeout": 60}
    accepted = [client.post("/generate", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in accepted] == [202, 202]
    assert accepted[0].headers["x-ratelimit-limit-tokens"] == "600"
    assert accepted[0].headers["x-ratelimit-remaining-tokens"] == "300"
    assert accepted[0].headers["x-ratelimit-reset-tokens"] == "30.000s"
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 290}
    for refused in (
        client.post("/generate", json=body, headers=headers),
        client.post("/v1/chat/completions", json=chat, headers=headers),
    ):
        error = refused.get_json()["error"]
        assert (refused.status_code, error["code"], error["quota"]) == (429, "rate_limited", "tokens_per_minute")
        assert 0 < int(refused.headers["Retry-After"]) <= 30
        assert 0 <= int(refused.headers["x-ratelimit-remaining-tokens"]) < 60
    too_large = client.post("/generate", json={**body, "max_tokens": 2000}, headers=headers)
    assert (too_large.status_code, too_large.headers["x-should-retry"]) == (429, "false")
    KeyLimits(redis_client).set_limits(key.id, {"tokens_per_minute": 0, "tokens_per_day": 1})
    spent = client.post("/v1/chat/completions", json=chat, headers=headers)
    assert (spent.status_code, spent.get_json()["error"]["code"]) == (429, "quota_exceeded")
    assert (spent.get_json()["error"]["type"], spent.headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert int(spent.headers["Retry-After"]) > 0


def test_an_administrator_reads_and_changes_limits(client: FlaskClient) -> None:
    changed = client.patch("/admin/owners/ada", json={"weight": 2, "limits": {"tokens_per_day": 500, "running_jobs": 4}})
    assert changed.status_code == 200
    Owner.model_validate(changed.get_json())
    again = client.patch("/admin/owners/ada", json={"limits": {"running_jobs": None}}).get_json()
    assert (again["weight"], again["limits"]) == (2, {"tokens_per_day": 500})
    assert (again["effective_limits"]["tokens_per_day"], again["effective_limits"]["running_jobs"]) == (500, 0)
    assert client.get("/admin/owners/ada").get_json() == again
    assert client.get("/admin/owners").get_json()["data"] == [again]
    for body, param in (
        ({"limits": {"colour": 1}}, "limit"),
        ({"limits": {"tokens_per_day": -1}}, "limits.tokens_per_day"),
        ({"weight": 0}, "weight"),
    ):
        refused = client.patch("/admin/owners/ada", json=body)
        assert (refused.status_code, refused.get_json()["error"]["param"]) == (422, param)
    assert client.get("/admin/owners/a b").status_code == 422


def test_limits_of_a_key_are_set_by_a_command(redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    key, _ = ApiKeys(redis_client).create("ada")
    limit_key(redis_client, key.id, limits=["tokens_per_minute=100", "tokens_per_day=7"])
    limit_key(redis_client, key.id, limits=["tokens_per_day=0"])
    assert capsys.readouterr().out.splitlines()[-1] == f"Key {key.id} has the limits tokens_per_minute=100."
    with pytest.raises(InvalidValue, match="must be one of tokens_per_minute, tokens_per_day, tokens_per_month"):
        limit_key(redis_client, key.id, limits=["documents=1"])
    with pytest.raises(NotFound):
        limit_key(redis_client, "key_none", limits=[])
