"""What needs the attention of the caller, or of the operator: failing jobs and webhooks, full limits, stopped queues, models and disks."""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from api.caller import caller
from api.caller_limits import caller_limits
from api.operations_state import list_gpus_json, list_queues_json
from api.owned_jobs import job_rights
from api.services import owner, services
from shared.documents.data_warnings import data_warnings
from shared.documents.index_health import list_problems
from shared.jobs.job_filter import JobFilter
from shared.rights import DOCUMENTS, WEBHOOKS
from shared.webhooks.endpoints import DISABLED_BY_OWNER

# A receiver that restarts may miss one or two attempts of a delivery, and a few in all.
FAILED_ATTEMPTS = 3
FAILED_ATTEMPTS_IN_ALL = 10
MAX_DELIVERIES = 100
# Failures are reported from this number on within the period, if they are at least half of the jobs that ended in it.
RECENT_SECONDS = 900
FAILED_JOBS = 3
MAX_DEAD_LETTERS = 100
# A limit that is used up to this share is worth a word before it is reached. Rates and numbers of jobs come and go.
NEARLY_USED = 0.9
LASTING_LIMITS = ("stored_bytes", "documents", "collections", "tokens_per_month")


@dataclass(frozen=True)
class Attention:
    """One thing. ``subject`` is the kind of object and its id or name, if it is about one object."""

    code: str
    message: str
    subject: tuple[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        subject = None if self.subject is None else {"object": self.subject[0], "id": self.subject[1]}
        return {"object": "attention", "code": self.code, "message": self.message, "subject": subject}


def find_attention() -> list[Attention]:
    """What needs the caller's attention, and the operator's if the caller is an administrator."""
    found = [*_failing_jobs(), *_nearly_used_limits()]
    if caller().rights.has_any((DOCUMENTS,)):
        found += _collections()
    if caller().rights.has_any((WEBHOOKS,)):
        found += _webhooks()
    if caller().admin:
        found += [*_server(), *_queues(), *_gpus()]
    return found


def _failing_jobs() -> Iterator[Attention]:
    # A job may have been submitted some time before it failed: of those that were submitted lately, most have ended.
    since = round(1000 * (time.time() - RECENT_SECONDS))
    counts = services().queries.count_jobs(JobFilter(owner=owner(), since_ms=since, rights=job_rights())).status
    failed, completed = counts.get("failed", 0), counts.get("completed", 0)
    if failed >= FAILED_JOBS and failed >= completed:
        yield Attention("jobs_failing", f"Jobs fail: {failed} of the {failed + completed} that ended lately.", ("job", ""))


def _nearly_used_limits() -> Iterator[Attention]:
    limits = caller_limits()
    used = services().owner_use.read(owner(), limits, LASTING_LIMITS)
    for name, number in used.items():
        if limits[name] and number >= NEARLY_USED * limits[name]:
            share = 100 * number // limits[name]
            yield Attention("limit_nearly_used", f"{share} % of the limit {name} is used.", ("limit", name))


def _collections() -> Iterator[Attention]:
    problems = list_problems(services().redis)
    if not problems:
        return
    for collection in services().documents.list_collections(owner()):
        if collection.id in problems:
            message = f"The collection {collection.name} has to be reindexed: {problems[collection.id]}"
            yield Attention("collection_to_reindex", message, ("collection", collection.name))


def _webhooks() -> Iterator[Attention]:
    for endpoint in services().endpoints.list_for_owner(owner()):
        if endpoint.disabled and endpoint.disabled != DISABLED_BY_OWNER:
            yield Attention("webhook_disabled", f"The webhook {endpoint.url} is disabled.", ("webhook", endpoint.id))
    attempts: dict[str, list[int]] = defaultdict(list)
    pending, _ = services().deliveries.list_deliveries(owner(), limit=MAX_DELIVERIES, status="pending")
    for delivery in pending:
        attempts[delivery.url].append(len(delivery.attempts))
    for url, numbers in attempts.items():
        if max(numbers) >= FAILED_ATTEMPTS or sum(numbers) >= FAILED_ATTEMPTS_IN_ALL:
            yield Attention("deliveries_failing", f"Deliveries to {url} fail.", ("webhook", ""))


def _server() -> Iterator[Attention]:
    missing = services().disk_space.shortage()
    if missing:
        message = f"The disk is nearly full: jobs and uploads are refused until {missing:,} bytes are free."
        yield Attention("disk_full", message)
    for warning in data_warnings(services().redis, services().settings):
        yield Attention("data_warning", warning)
    number = len(services().queries.dead_letters(MAX_DEAD_LETTERS))
    if number:
        what = (
            "One job is a dead letter: every worker that ran it"
            if number == 1
            else f"{number} jobs are dead letters: every worker that ran them"
        )
        yield Attention("dead_letters", f"{what} died.")


def _queues() -> Iterator[Attention]:
    drained = services().pauses.since("worker")
    for queue in list_queues_json():
        name, waiting = queue["queue"], queue["waiting"]
        jobs = "a job waits" if waiting == 1 else f"{waiting} jobs wait"
        if waiting and queue["paused_at"] is not None:
            yield Attention("queue_paused", f"The queue {name} is paused while {jobs} in it.", ("queue", name))
        elif waiting and not queue["workers"] and not name.startswith("gpu."):
            # Workers of gpu queues come with their models.
            yield Attention("queue_without_worker", f"No worker serves the queue {name}, in which {jobs}.", ("queue", name))
        elif waiting and drained:
            serving = {worker.name for worker in services().live_workers() if name in worker.queues}
            if serving and serving <= drained.keys():
                yield Attention(
                    "queue_drained", f"All workers of the queue {name}, in which {jobs}, are drained.", ("queue", name)
                )


def _gpus() -> Iterator[Attention]:
    for worker in list_gpus_json():
        name = worker["gpu"]
        if worker["state"] == "failed":
            message = f"{name} could not load its model: {worker['reason'] or 'see its log'}"
            yield Attention("model_failed", message, ("gpu", name))
        if any(gpu.get("memory_alarm") == "critical" for gpu in worker["gpus"]):
            yield Attention("gpu_memory_full", f"The GPU memory of {name} is nearly full.", ("gpu", name))
        if any(gpu.get("xid_errors") for gpu in worker["gpus"]):
            yield Attention("gpu_error", f"A GPU of {name} reported an error (Xid).", ("gpu", name))
