"""HTTP edge cases: unusual requests get a clear error instead of a 500, and a failed call leaves nothing behind."""

import gzip
import io
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import redis
from flask import g
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.caller import Caller
from api.request_parsing import requested_timeout
from api.routes.web_ui import BUILT
from api.submission import short_job_error
from shared.errors import InvalidValue, NotFound
from shared.ids import DOCUMENT, new_id
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.settings import Settings
from shared.webhooks.endpoints import Kind
from testing.fault_rig.disks import disk
from tests.conftest import JobSystem

MODEL = "gemma-3-270m"


@pytest.fixture
def client(settings: Settings, system: JobSystem) -> FlaskClient:
    return create_app(settings).test_client()


def error(answer: TestResponse) -> dict[str, Any]:
    content: dict[str, Any] = answer.get_json()["error"]
    return content


def completed_job(system: JobSystem, **fields: Any) -> str:
    job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={}, owner="local", **fields)).id
    claimed = system.transitions.claim("q", "w", job)
    assert claimed is not None
    result = {"text": "done", "finish_reason": "stop", "usage": {}}
    assert system.transitions.finish((job, claimed.attempt), Status.COMPLETED, result=result) == "ok"
    return job


@pytest.mark.parametrize("suffix", ["", ":events", ":open"])
def test_a_key_of_a_job_is_not_a_job(client: FlaskClient, system: JobSystem, suffix: str) -> None:
    job = completed_job(system)
    assert client.delete(f"/jobs/{job}{suffix}").status_code == (404 if suffix else 200)


def test_a_key_of_a_delivery_is_not_a_delivery(client: FlaskClient, system: JobSystem) -> None:
    webhook = {"url": "https://x.example/", "authority": "x.example:443", "endpoint": "", "secret": ""}
    job = completed_job(system, webhook={**webhook, "events": ["job.completed"]})
    [delivery] = client.get(f"/jobs/{job}/deliveries").get_json()["data"]
    for call in (client.get, lambda path: client.post(f"{path}/redeliver")):
        answer = call(f"/deliveries/{delivery['id']}:job")
        assert (answer.status_code, error(answer)["code"]) == (404, "delivery_not_found")


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "ten"])
def test_a_number_in_a_header_that_is_not_one_is_rejected(client: FlaskClient, system: JobSystem, number: str) -> None:
    job = completed_job(system)
    for path, headers in ((f"/jobs/{job}", {"Prefer": f"wait={number}"}), (f"/jobs/{job}/events", {"Last-Event-ID": number})):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, error(answer)["param"]) == (422, next(iter(headers)))


@pytest.mark.parametrize(
    ("preference", "timeout"),
    [
        ("wait=5", 5),
        ("wait = 5", 5),
        ('wait="5"', 5),
        ('WAIT = "5" ; a=b; c', 5),
        ("respond-async, wait=5", 5),
        ("wait=5, respond-async", 5),
        ('foo="a, wait=9", wait=5, wait=7', 5),
        ("handling=lenient; wait=9", 30),
        ("respond-async; x", 0),
        ("", 30),
    ],
)
def test_a_preference_is_read_in_every_form(client: FlaskClient, preference: str, timeout: int) -> None:
    with client.application.test_request_context(headers={"Prefer": preference}):
        assert requested_timeout(30) == timeout


@pytest.mark.parametrize("preference", ["wait", "wait=", 'wait="', "wait=5.0", "wait=\xb2", "wait=٣"])
def test_a_wait_that_is_no_number_is_rejected(client: FlaskClient, preference: str) -> None:
    with client.application.test_request_context(headers={"Prefer": preference}), pytest.raises(InvalidValue):
        requested_timeout(30)


def test_a_key_is_free_again_once_its_job_is_deleted(client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "visit"}
    first = client.post("/batches", json={}, headers=headers).get_json()["id"]
    client.post(f"/jobs/{first}/seal")
    assert client.post("/batches", json={}, headers=headers).get_json()["id"] == first
    client.delete(f"/jobs/{first}")
    ids = {client.post("/batches", json={"metadata": {"a": "b"}}, headers=headers).get_json()["id"] for _ in range(2)}
    assert first not in ids
    assert len(ids) == 1, "the key stands for the new job"
    client.post(f"/jobs/{ids.pop()}/seal")


def test_a_job_that_was_deleted_while_a_call_waited_is_not_found(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/collections", json={"name": "papers"})
    queries = client.application.extensions["enginehouse"].queries
    monkeypatch.setattr(type(queries), "get_job", lambda *_: None)
    answer = client.post("/collections/papers/search", json={"query": "x"}, headers={"Prefer": "respond-async"})
    assert (answer.status_code, error(answer)["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("encoding", ["gzip", "br, identity", "x"])
def test_a_compressed_body_is_rejected(client: FlaskClient, encoding: str) -> None:
    answer = client.post("/batches", data=b"{}", content_type="application/json", headers={"Content-Encoding": encoding})
    assert (answer.status_code, error(answer)["code"]) == (415, "unsupported_encoding")
    assert answer.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("path", ["/", "/openapi.json"])
@pytest.mark.parametrize(("accepted", "encoding"), [("gzip", "gzip"), ("br, gzip;q=0.5", "gzip"), ("gzip;q=0", None), ("", None)])
def test_texts_are_compressed_for_clients_that_accept_gzip(
    client: FlaskClient, path: str, accepted: str, encoding: str | None
) -> None:
    answer = client.get(path, headers={"Accept-Encoding": accepted})
    assert (answer.status_code, answer.headers.get("Content-Encoding")) == (200, encoding)
    assert "Accept-Encoding" in answer.vary


@pytest.mark.parametrize(("accepted", "encoding"), [("gzip, br", "br"), ("gzip, br;q=0", "gzip"), ("identity", None)])
def test_scripts_of_the_page_are_sent_with_brotli_to_clients_that_accept_it(
    client: FlaskClient, accepted: str, encoding: str | None
) -> None:
    script = next(path for path in (BUILT / "assets").iterdir() if path.suffix == ".js")
    plain = script.read_bytes()
    answer = client.get(f"/ui/assets/{script.name}", headers={"Accept-Encoding": accepted})
    assert (answer.status_code, answer.headers.get("Content-Encoding")) == (200, encoding)
    assert answer.data == {"br": script.with_name(f"{script.name}.br").read_bytes(), None: plain}.get(
        encoding, gzip.compress(plain, mtime=0)
    )
    assert "Accept-Encoding" in answer.vary


@pytest.mark.parametrize(("extra", "status"), [(0, 201), (1, 413), (100_000, 413)])
def test_a_body_in_chunks_has_the_same_limit(settings: Settings, system: JobSystem, extra: int, status: int) -> None:
    client = create_app(replace(settings, max_body_bytes=2048)).test_client()
    body = b'{"metadata": {}' + b" " * (2048 - 16 + extra) + b"}"
    options = {"environ_overrides": {"wsgi.input_terminated": True}, "headers": {"Transfer-Encoding": "chunked"}}
    answer = client.post("/batches", input_stream=io.BytesIO(body), content_type="application/json", **options)
    assert answer.status_code == status
    if status == 201:
        client.post(f"/jobs/{answer.get_json()['id']}/seal")


def test_a_search_that_loses_its_collection_is_a_404(client: FlaskClient, system: JobSystem) -> None:
    job = system.submitter.submit_job(Submission(kind="search", queue="q", spec={}, owner="local")).id
    claimed = system.transitions.claim("q", "w", job)
    assert claimed is not None
    gone = NotFound("The collection has been deleted.", param="collection").as_json()
    assert system.transitions.finish((job, claimed.attempt), Status.FAILED, error=gone) == "ok"
    ended = client.application.extensions["enginehouse"].queries.get_job(job)
    assert isinstance(short_job_error(ended), NotFound)


@pytest.mark.parametrize("header", ["Origin", "Host"])
def test_a_malformed_host_or_origin_is_rejected(client: FlaskClient, header: str) -> None:
    answer = client.get("/jobs", headers={header: "http://[" if header == "Origin" else "[::1"})
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deeply_nested_json_is_rejected(client: FlaskClient, depth: int) -> None:
    nested = '{"and": [' * depth + '{"page": 1}' + "]}" * depth
    body = f'{{"query": "x", "filter": {nested}}}'
    assert client.post("/collections/papers/search", data=body, content_type="application/json").status_code in (400, 422)
    for field in ("webhook", "metadata"):
        form = {"file": (io.BytesIO(b"x"), "a.txt"), field: nested[:400_000]}
        assert client.post("/upload", data=form).status_code == 422


def test_a_webhook_secret_that_is_not_ascii_is_rejected(client: FlaskClient) -> None:
    answer = client.post("/webhooks", json={"url": "https://8.8.8.8/", "secret": "whsec_é"})
    assert (answer.status_code, error(answer)["param"]) == (422, "secret")


def test_a_webhook_may_subscribe_to_every_kind_of_job(client: FlaskClient) -> None:
    kinds = list(get_args(Kind))
    answer = client.post("/webhooks", json={"url": "https://8.8.8.8/", "job_kinds": kinds})
    assert (answer.status_code, answer.get_json()["job_kinds"]) == (201, kinds)


def test_a_repeated_request_may_follow_a_change_of_its_webhook(client: FlaskClient) -> None:
    webhook = {"url": "https://8.8.8.8/"}
    headers = {"Idempotency-Key": "batch"}
    first = client.post("/batches", json={"webhook": webhook}, headers=headers).get_json()
    client.post("/webhooks", json=webhook)
    again = client.post("/batches", json={"webhook": webhook}, headers=headers)
    assert (again.status_code, again.get_json()["id"]) == (201, first["id"])
    client.post(f"/jobs/{first['id']}/seal")


def test_a_damaged_text_index_is_a_503(client: FlaskClient, settings: Settings) -> None:
    services = client.application.extensions["enginehouse"]
    collection = services.documents.ensure_collection("local", "papers", "vectors")
    fields = {"name": "a", "size": 1, "sha256": "1" * 64, "media_type": "text/plain", "job_id": "job_1"}
    document, _ = services.documents.register(collection, document_id=new_id(DOCUMENT), **fields)
    services.documents.finish(document.id, "job_1", 1, "ready", chunks=1)
    settings.text_index_dir.mkdir()
    (settings.text_index_dir / f"{collection.index}.db").write_bytes(b"no database" * 1000)
    answer = client.get(f"/documents/{document.id}/chunks")
    assert (answer.status_code, error(answer)["code"]) == (503, "index_unavailable")
    assert "collections check --fix" in error(answer)["message"]


def test_an_unknown_kind_of_job_is_rejected(client: FlaskClient) -> None:
    assert error(client.get("/jobs?kind=generation"))["param"] == "kind"


def test_an_invalid_cursor_is_rejected(client: FlaskClient) -> None:
    client.post("/collections", json={"name": "papers"})
    for path in ("/jobs", "/deliveries", "/collections/papers/documents"):
        answer = client.get(path, query_string={"after": "yesterday"})
        assert (answer.status_code, error(answer)["param"]) == (422, "after"), path


def test_an_optional_body_may_be_sent_in_chunks(client: FlaskClient) -> None:
    body = io.BytesIO(b'{"metadata": {"order": "17"}}')
    options = {"environ_overrides": {"wsgi.input_terminated": True}, "headers": {"Transfer-Encoding": "chunked"}}
    answer = client.post("/batches", input_stream=body, content_type="application/json", **options)
    assert answer.get_json()["metadata"] == {"order": "17"}
    client.post(f"/jobs/{answer.get_json()['id']}/seal")


def test_the_largest_number_of_files_may_have_metadata(client: FlaskClient) -> None:
    form = {"file": [(io.BytesIO(b"x"), "a.txt") for _ in range(1000)], "metadata": "[]"}
    answer = client.post("/collections/papers/documents", data=form)
    assert (answer.status_code, error(answer)["param"]) == (422, "metadata"), "the metadata is read, and not the files rejected"


def test_a_form_field_that_is_too_large_is_named_as_the_cause(client: FlaskClient) -> None:
    answer = client.post("/upload", data={"file": (io.BytesIO(b"x"), "a.txt"), "metadata": "x" * 600_000})
    assert answer.status_code == 413
    assert "form field" in error(answer)["message"]


def full(settings: Settings, queue: str, system: JobSystem) -> FlaskClient:
    """An API whose queue ``queue`` accepts no job."""
    system.submitter.submit_job(Submission(kind="search", queue=queue, spec={}, owner="local"))
    return create_app(replace(settings, max_queued=1)).test_client()


@pytest.mark.parametrize("call", ["delete", "clear"])
def test_a_collection_whose_deletion_is_rejected_stays_visible(settings: Settings, system: JobSystem, call: str) -> None:
    client = full(settings, "io", system)
    client.post("/collections", json={"name": "default"})
    if call == "delete":
        answer = client.delete("/collections/default?permanent=true")
    else:
        answer = client.post("/clear_db", json={"confirm": True})
    assert answer.status_code == 429
    assert client.get("/collections/default").status_code == 200, "its data is still stored"


def test_a_deletion_is_accepted_although_no_client_may_wait(settings: Settings, system: JobSystem) -> None:
    app = create_app(replace(settings, api_threads=1))
    with app.test_request_context():
        g.caller = Caller(owner="local", alone=True)
        app.extensions["enginehouse"].job_waiter.acquire_slot("waits")
    client = app.test_client()
    client.post("/collections", json={"name": "papers"})
    answer = client.delete("/collections/papers?permanent=true")
    assert (answer.status_code, answer.get_json()["kind"]) == (202, "delete")
    assert client.get("/collections/papers").status_code == 404


@pytest.mark.parametrize("path", ["/upload", "/collections/papers/documents"])
@pytest.mark.parametrize("content", [b"text", b"PK\x05\x06" + bytes(18)], ids=["text", "zip"])
def test_a_failed_upload_leaves_no_file(
    settings: Settings, system: JobSystem, monkeypatch: pytest.MonkeyPatch, path: str, content: bytes
) -> None:
    app = create_app(settings)
    services = app.extensions["enginehouse"]

    def fail(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(type(services.documents), "ensure_collection", fail)
    assert app.test_client().post(path, data={"file": (io.BytesIO(content), "a")}).status_code == 503
    monkeypatch.undo()
    monkeypatch.setattr(type(services.queries), "get_job", fail)
    assert app.test_client().post(path, data={"file": (io.BytesIO(content), "a")}).status_code == 503
    assert list(Path(settings.documents_dir).glob("*")) == []


def test_a_repeated_first_message_gets_its_own_session(client: FlaskClient, redis_client: redis.Redis) -> None:
    worker = Worker(id="w", name="gpu0@h", pool="gpu", machine="m", pid=1, started=0.0, queues=(), slots=1, model=MODEL)
    WorkerRegistry(redis_client).heartbeat(worker)
    body, headers = {"message": "hello", "model": MODEL}, {"Idempotency-Key": "visit", "Prefer": "wait=1"}
    first = client.post("/chat/start", json=body, headers=headers).get_json()
    # Not those of the job system, whose clock is simulated.
    transitions = client.application.extensions["enginehouse"].transitions
    assert transitions.claim(f"gpu.{MODEL}", "w", "t").id == first["id"]
    messages = [{"role": role, "content": text, "timestamp": "now"} for role, text in (("user", "hello"), ("assistant", "hi"))]
    result = {"text": "hi", "finish_reason": "stop", "usage": {}}
    transitions.finish((first["id"], 1), Status.COMPLETED, result=result, messages=messages)
    again = client.post("/chat/start", json=body, headers=headers).get_json()
    assert (again["job"], again["sessionId"], again["messages"]) == (first["id"], first["session"], messages)


def test_dead_letters_beyond_the_first_page_can_be_removed(
    client: FlaskClient, system: JobSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.routes import dead_letters

    monkeypatch.setattr(dead_letters, "MAX_LISTED", 1)
    jobs = [completed_job(system) for _ in range(2)]
    system.client.zadd("eh:jobs:dead_letters", {job: number for number, job in enumerate(jobs)})
    assert [client.delete(f"/admin/dead-letters/{job}").status_code for job in jobs] == [200, 200]
    assert client.delete(f"/admin/dead-letters/{jobs[0]}").status_code == 404


def test_a_job_of_another_owner_is_not_waited_for(client: FlaskClient, system: JobSystem) -> None:
    job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={}, owner="eve")).id
    app = client.application
    waiter = app.extensions["enginehouse"].job_waiter
    waiter.expect_completion = None  # type: ignore[assignment]
    assert client.get(f"/jobs/{job}?wait=60").status_code == 404
    system.transitions.cancel(job, "eve")


def test_readiness_is_reported_without_a_generation_model(settings: Settings, tmp_path: Path, redis_client: redis.Redis) -> None:
    models = tmp_path / "models.json"
    models.write_text('[{"name": "vectors", "url": "echo:0", "task": "embed"}]')
    answer = create_app(replace(settings, models_file=models)).test_client().get("/health/ready")
    assert (answer.status_code, answer.get_json()["status"]) == (503, "not_ready")


def test_a_misspelt_field_is_named_with_the_one_that_was_meant(client: FlaskClient) -> None:
    answer = client.post("/generate", json={"promt": "hello"})
    assert (answer.status_code, error(answer)["param"]) == (422, "promt")
    assert error(answer)["message"] == "promt: is not a field of this call; did you mean prompt?"
    answer = client.post("/generate", json={"prompt": "hello", "colour": "red"})
    assert error(answer)["message"] == "colour: is not a field of this call"


def test_an_unknown_model_is_answered_with_the_models_that_would_work(client: FlaskClient) -> None:
    message = error(client.post("/generate", json={"prompt": "hello", "model": "gpt-9"}))["message"]
    assert MODEL in message
    assert "minilm" not in message
    message = error(client.post("/collections", json={"name": "papers", "embedding_model": "gpt-9"}))["message"]
    assert MODEL not in message
    assert "minilm" in message


def test_a_form_without_a_length_leaves_the_reserve_of_the_temporary_disk(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boundary = b'--form\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    body = boundary + b"x" * 9 * 2**20 + b"\r\n--form--\r\n"
    with disk(tmp_path / "temporary", 8) as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        client = create_app(settings).test_client()
        answer = client.post(
            "/upload",
            input_stream=io.BytesIO(body),
            content_type="multipart/form-data; boundary=form",
            environ_overrides={"wsgi.input_terminated": True},
        )
        assert (answer.status_code, error(answer)["code"]) == (503, "disk_full")
        assert list(folder.iterdir()) == []
        usage = shutil.disk_usage(folder)
        assert usage.free == usage.total
    assert not any(settings.documents_dir.glob("*"))


def test_the_ocr_languages_of_a_collection_are_checked_and_can_be_reset(client: FlaskClient) -> None:
    created = client.post("/collections", json={"name": "letters", "ocr_languages": ["deu", "fra", "deu"]})
    assert (created.status_code, created.get_json()["ocr_languages"]) == (201, ["deu", "fra"])
    assert client.patch("/collections/letters", json={"chunk_tokens": 100}).get_json()["ocr_languages"] == ["deu", "fra"]
    for languages, reason in ((["rus"], "rapidocr cannot read rus"), (["../etc"], "not a language such as"), ([], "at least 1")):
        refused = client.patch("/collections/letters", json={"ocr_languages": languages})
        assert (refused.status_code, error(refused)["param"], reason in error(refused)["message"]) == (422, "ocr_languages", True)
    assert client.patch("/collections/letters", json={"ocr_languages": None}).get_json()["ocr_languages"] is None


def test_a_nearly_full_redis_refuses_large_jobs_while_small_ones_cancels_and_deletes_go_on(
    settings: Settings, redis_client: redis.Redis
) -> None:
    redis_client.hset("eh:models", MODEL, 1)
    app = create_app(settings)
    client, transitions = app.test_client(), app.extensions["enginehouse"].transitions

    def submit(prompt: str) -> TestResponse:
        return client.post("/generate", json={"prompt": prompt, "model": MODEL})

    large, small = "large " * 20_000, "small"
    before = [submit(prompt).get_json()["id"] for prompt in (large, large, small)]
    # So much that the rest is enough for the small calls, however the memory of connections varies.
    redis_client.setrange("eh:filler", 30_000_000, "x")
    try:
        redis_client.config_set("maxmemory", int(redis_client.info("memory")["used_memory"] / 0.93))
        refused = submit(large)
        assert (refused.status_code, error(refused)["code"]) == (503, "memory_full")
        assert int(refused.headers["Retry-After"]) > 0
        assert submit(small).status_code == 202
        assert client.post(f"/jobs/{before[0]}/cancel").status_code == 200
        assert client.delete(f"/jobs/{before[0]}").status_code == 200
        running = transitions.claim(f"gpu.{MODEL}", "w", "token")
        assert running is not None
        assert running.id == before[1]
        assert transitions.finish((running.id, 1), Status.COMPLETED, result={"text": large}) == "ok"
        assert client.get(f"/jobs/{running.id}").get_json()["status"] == "completed"
        redis_client.delete("eh:filler")
        redis_client.config_set("maxmemory", int(redis_client.info("memory")["used_memory"] / 0.5))
        assert submit(large).status_code == 202, "as soon as there is room"
    finally:
        redis_client.config_set("maxmemory", 0)
        redis_client.delete("eh:filler")
