"""The JSON of a job has exactly the fields that the response model promises, whatever its kind and status."""

import json
from typing import Any

import pytest

from api.schemas import responses
from shared.jobs.models import AttemptRecord, Job, Outcome, Status, from_record
from shared.jobs.serialization import job_view

JOB_ID = "job_01m84stetzyr7esggznw5rdjds"
# Only the API knows these: they depend on the queue at the moment of the request.
QUEUE_FIELDS = {"queue_position", "estimated_wait", "not_before", "waiting_for"}
REQUEST_BATCH_FIELDS = {"request_counts", "estimated_end_at"}

COUNTS = {"total": 2, "completed": 1, "failed": 1, "cancelled": 0, "expired": 0}
CITATION = {"marker": "[1]", "document_id": "doc_1", "document": "a.txt", "page": 1, "start": 0, "end": 4, "quote": "text"}
CITATION |= {"source": "ocr", "confidence": 0.9}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
HIT = {
    "document_id": "doc_1",
    "document": "a.txt",
    "chunk_id": "doc_1:0",
    "position": 0,
    "page": 1,
    "start": 0,
    "end": 4,
    "headings": [],
    "text": "text",
    "score": 1.0,
    "neighbours": [],
    "source": "text",
    "confidence": None,
}
MEMBER = {"name": "a.txt", "document_id": "doc_1"}
RESULTS: dict[str, Any] = {
    "generate": {"text": "Paris.", "finish_reason": "stop", "usage": USAGE, "citations": [CITATION]},
    "ingest": {
        "document_id": "doc_1",
        "status": "ready",
        "pages": 1,
        "chunks": 1,
        "reason": None,
        "replaced": None,
        "timings": {"parse": 0.1},
    },
    "search": {"hits": [HIT]},
    "rerank": {"scores": [0.5], "tokens": 3},
    "delete": {"deleted": True, "documents": 1},
    "reindex": {"documents": 1, "chunks": 1, "skipped": [], "embedding_model": "m", "embedding_revision": "r"},
    "unpack": {
        "name": "a.zip",
        "documents": 1,
        "members": [MEMBER],
        "duplicates": 0,
        "duplicate_members": [],
        "skipped": 1,
        "skipped_members": [{"name": "link", "reason": "it is a link"}],
    },
    "embed": {"vectors": "AACAPw==", "dimension": 1, "tokens": 2},
    "tokenize": {"tokens": [104], "token_strs": ["h"], "max_model_len": 8192},
    "fetch": {"url": "https://example.org/a", "status": "fetched", "document_id": "doc_1", "job": JOB_ID, "bytes": 7},
    "draw": {"page": 2, "width": 595.28, "height": 841.89, "bytes": 48211},
    "batch": COUNTS,
    "request_batch": {
        "batch": "batch_01m84stetzyr7esggznw5rdjds",
        "request_counts": {"total": 2, "completed": 1, "failed": 1},
        "output_file_id": "file-01m84svpew31wcd91z2271xy1f",
        "error_file_id": None,
    },
}


def job(kind: str, **fields: Any) -> Job:
    values = {
        "id": JOB_ID,
        "kind": kind,
        "owner": "local",
        "queue": "q",
        "status": Status.QUEUED,
        "phase": "queued",
        "attempt": 0,
    }
    times = {"created_at": 1000, "expires_at": 9000, "phase_at": 1000}
    return Job(**{**values, **times, "spec": {}, **fields})


def completed(kind: str) -> Job:
    attempt = AttemptRecord(number=1, worker="w/1", queue="q", started_at=1500, ended_at=2000, outcome=Outcome.COMPLETED)
    extra = {"counts": COUNTS, "sealed": True} if kind == "batch" else {"session": "ses_1"}
    times = {"started_at": 1500, "first_token_at": 1600, "ended_at": 2000, "heartbeat_at": 1900}
    return job(kind, status=Status.COMPLETED, phase="completed", result=RESULTS[kind], attempts=(attempt,), **extra, **times)


JOBS = [
    *(completed(kind) for kind in RESULTS),
    job("generate"),
    job("generate", line_of=JOB_ID),
    job("generate", concurrency_key="nightly", concurrency_limit=2),
    job("ingest", status=Status.IN_PROGRESS, progress={"phase": "parsing", "done": 1, "total": 0, "unit": "pages"}),
    job("generate", status=Status.FAILED, error={"code": "timeout", "message": "m", "param": None, "type": "job_error"}),
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.kind}-{job.status}")
def test_the_view_matches_the_response_model(job: Job) -> None:
    responses.Job.model_validate(job_view(job))


def test_the_response_model_has_no_field_that_no_view_has() -> None:
    fields = {field.alias or name for name, field in responses.Job.model_fields.items()}
    assert fields == set().union(*(job_view(job) for job in JOBS)) | QUEUE_FIELDS | REQUEST_BATCH_FIELDS


def test_the_kinds_of_results_are_the_kinds_of_jobs() -> None:
    kinds = responses.Job.model_fields["kind"].annotation
    assert set(RESULTS) == set(getattr(kinds, "__args__", ()))


def test_fields_of_a_newer_version_are_ignored() -> None:
    attempt = {"number": 1, "worker": "w/1", "queue": "q", "started_at": 1500, "outcome": "completed", "new_field": 1}
    record = {"status": "completed", "attempt": "1", "attempt:1": json.dumps(attempt), "new_field": "1", "spec": "{}"}
    times = {"created_at": "1000", "expires_at": "9000", "phase_at": "1000"}
    found = from_record({"id": JOB_ID, "kind": "generate", "owner": "ada", "queue": "q", "phase": "completed"} | record | times)
    assert found.attempts == (AttemptRecord(1, "w/1", "q", 1500, outcome=Outcome.COMPLETED),)
