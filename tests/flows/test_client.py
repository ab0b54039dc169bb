"""The Python client against a running stack; each test runs with the blocking and the asynchronous client."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse_client import (
    AsyncClient,
    Client,
    Conflict,
    ConnectionFailed,
    IngestProgress,
    InvalidRequest,
    JobFailed,
    NotFound,
    RetryPolicy,
    Unavailable,
    UploadProgress,
    webhooks,
)
from testing.receiver import Receiver, fail_first
from testing.stack import Stack
from testing.waiting import wait_until
from tests.client.either_way import Awaited
from tests.odd_files import packed_zip


def either(kind: str, url: str, **options: RetryPolicy) -> Iterator[Client]:
    """A blocking client, or an asynchronous one with the same interface."""
    if kind == "blocking":
        with Client(url, **options) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        client = AsyncClient(url, **options)
        yield Awaited(runner, client)  # type: ignore[misc] it has the methods of a Client
        runner.run(client.close())


@pytest.fixture(params=["blocking", "asynchronous"])
def client(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Client]:
    yield from either(request.param, stack.url)


@pytest.fixture
def collection(request: pytest.FixtureRequest) -> str:
    """A unique collection name per test and client."""
    return "".join(character if character.isalnum() else "-" for character in request.node.name)[-60:].strip("-")


def test_submit_wait_and_get(client: Client) -> None:
    job = client.generate("hello", max_tokens=3, metadata={"page": "7"})
    ended = client.wait(job)
    assert (ended.text, ended.status, ended.metadata) == ("hel", "completed", {"page": "7"})
    assert [attempt.outcome for attempt in ended.attempts] == ["completed"]
    assert client.get(job.id) == ended
    assert client.generate("hello", wait=20).text == "hello"


def test_ask_returns_the_answer(client: Client) -> None:
    assert client.ask("hello") == "user: hello"
    with pytest.raises(JobFailed) as raised:
        client.ask("x" * 9000)
    assert raised.value.code == "prompt_too_long"


def test_a_stream_yields_all_events(client: Client) -> None:
    job = client.generate("a text")
    events = list(client.stream(job))
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert "".join(event.text for event in events) == "a text"
    assert (events[0].type, events[-1].type) == ("queued", "ended")
    assert [event.id for event in client.stream(job, after=events[-2].id)] == [events[-1].id]
    assert list(client.stream(job, after=events[-1].id)) == []


def test_a_stream_can_be_abandoned(client: Client) -> None:
    job = client.generate("a text")
    for event in client.stream(job):
        assert event.type == "queued"
        break
    assert client.wait(job).text == "a text"


def test_ended_jobs_are_retried_and_deleted_but_not_cancelled(client: Client) -> None:
    job = client.wait(client.generate("again"))
    again = client.retry(job)
    assert again.retry_of == job.id
    assert client.wait(again).text == "again"
    with pytest.raises(Conflict) as raised:
        client.cancel(job)
    assert (raised.value.code, raised.value.details) == ("job_ended", {"status": "completed"})
    client.delete(job)
    with pytest.raises(NotFound):
        client.get(job)


def test_jobs_are_listed_across_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginehouse_client.jobs.PAGE", 3)
    made = [client.generate(f"list {number}").id for number in range(8)]
    for job in made:
        client.wait(job)
    listed = []
    for job in client.jobs(status="completed", kind="generate"):
        listed.append(job.id)
        if len(listed) == 8:
            break
    assert listed == made[::-1]


def test_an_error_response_raises_with_the_servers_message(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="temperature: input should be less than or equal to 2") as raised:
        client.generate("x", temperature=9.5)
    assert (raised.value.status, raised.value.param) == (422, "temperature")
    with pytest.raises(NotFound) as missing:
        client.generate("x", model="nope")
    assert missing.value.code == "model_not_found"


def test_an_unavailable_server_is_retried_then_raises(request: pytest.FixtureRequest, stack: Stack) -> None:
    slept: list[float] = []

    def no_jitter() -> float:
        slept.append(0)
        return 1.0

    for kind in ("blocking", "asynchronous"):
        for client in either(kind, stack.url, retry_policy=RetryPolicy(retries=1, max_retry_after=0.1, jitter=no_jitter)):
            with pytest.raises(Unavailable) as raised:
                client.generate("x", model="not-started")
            assert (raised.value.code, raised.value.attempts) == ("model_not_served", 2)
    assert len(slept) == 2


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_a_connection_failure_names_the_address(kind: str) -> None:
    for client in either(kind, "http://127.0.0.1:9", retry_policy=RetryPolicy(retries=0)):
        with pytest.raises(ConnectionFailed, match=r"no response from http://127\.0\.0\.1:9/models"):
            client.models()


def test_a_chat_has_branches_and_a_title(client: Client) -> None:
    chat = client.chat(max_tokens=30)
    chat.say("one", system="Be kind.")
    [first] = chat.turns()
    assert (first.status, first.message, first.answer, first.parent) == ("completed", "one", "system: Be kind.\nuser: one", None)
    assert chat.edit(first, "uno").text == "user: uno"
    assert chat.regenerate(chat.turns()[0], max_tokens=4).text == "user"
    assert len(chat.turns()[0].siblings) == 3
    chat.show(first)
    assert [turn.message for turn in chat.turns()] == ["one"]
    chat.rename("A chat of this test")
    [entry] = client.chats("chat of this")
    assert (entry.id, entry.title, entry.turns) == (chat.id, "A chat of this test", 3)
    chat.delete()
    assert chat.id not in [entry.id for entry in client.chats()]
    chat.restore()
    assert chat.id in [entry.id for entry in client.chats()]
    chat.delete()


def test_a_chat_keeps_its_history(client: Client) -> None:
    chat = client.chat(max_tokens=30)
    first = chat.say("one")
    assert first.text == "user: one"
    assert chat.say("two").text.startswith("user: one\nassistant: user:")
    assert [message["content"] for message in chat.history()][:2] == ["one", "user: one"]
    same = client.chat(chat.id)
    same.say("three")
    assert len(chat.history()) == 6
    job = same.submit("four")
    assert list(client.stream(job))[-1].type == "ended"
    chat.delete()
    with pytest.raises(NotFound):
        chat.history()
    with pytest.raises(NotFound):
        same.say("five")


def test_a_folder_is_ingested_and_failures_are_listed(client: Client, collection: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "ducks.txt").write_text("The capital of the ducks is Pondicherry-on-Mud.")
    (tmp_path / "deep" / "geese.txt").write_text("Geese have no capital.")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    seen: list[IngestProgress] = []
    done = client.ingest(collection, [tmp_path, ("note.txt", b"A note on ducks.")], on_progress=seen.append)
    assert sorted(document.name for document in done.documents) == ["broken.pdf", "deep/geese.txt", "ducks.txt", "note.txt"]
    [rejected] = done.rejected
    assert (rejected.name, rejected.code) == ("broken.pdf", "failed")
    assert rejected.reason
    assert seen[-1] == IngestProgress(files=4, uploaded=4, ended=4, failed=1)
    assert len(list(client.jobs(batch=done.batch))) == 4
    hits = client.search(collection, "What is the capital of the ducks?", top_k=2)
    assert hits[0].document == "ducks.txt"
    answer = client.wait(client.generate(messages=[{"role": "user", "content": "capital?"}], collection=collection))
    assert answer.citations[0].page == 1

    again = client.ingest(collection, tmp_path / "ducks.txt", on_progress=seen.append)
    assert again.rejected == []
    assert seen[-1] == IngestProgress(files=1, uploaded=1, ended=1, failed=0)


def test_archive_members_are_reported(client: Client, collection: str, tmp_path: Path) -> None:
    known = client.upload(collection, ("known.txt", b"Known before."))
    members = {"a/one.txt": b"The first letter.", "broken.pdf": b"%PDF-1.7\nnothing more", "../up.txt": b"No."}
    (tmp_path / "letters.zip").write_bytes(
        packed_zip({**members, "copy.txt": b"The first letter.", "again.txt": b"Known before."})
    )
    (tmp_path / "spoilt.zip").write_bytes(packed_zip({"x.txt": b"text"})[:-40])
    (tmp_path / "loose.txt").write_text("Known before.")
    seen: list[IngestProgress] = []
    done = client.ingest(collection, tmp_path, on_progress=seen.append)
    assert sorted((document.name, document.id == known.id) for document in done.documents) == [
        ("a/one.txt", False),
        ("broken.pdf", False),
        ("known.txt", True),
    ]
    assert sorted((one.name, one.code, one.document is None) for one in done.rejected) == [
        ("broken.pdf", "failed", False),
        ("letters.zip: ../up.txt", "left_out", True),
        ("spoilt.zip", "failed", True),
    ]
    assert all(one.reason for one in done.rejected)
    assert sorted((twin.name, twin.document.name, twin.document.status) for twin in done.duplicates) == [
        ("letters.zip: again.txt", "known.txt", "ready"),
        ("letters.zip: copy.txt", "a/one.txt", "ready"),
    ]
    # The file that was known, two documents of the archive, and the archive that could not be unpacked.
    assert seen[-1] == IngestProgress(files=4, uploaded=3, ended=4, failed=2)
    assert client.get(done.batch).counts == {"total": 3, "completed": 1, "failed": 2, "cancelled": 0, "expired": 0}

    again = client.ingest(collection, tmp_path / "letters.zip")
    assert ([document.name for document in again.documents], len(again.duplicates)) == (["broken.pdf"], 3)
    with pytest.raises(ValueError, match=r"letters\.zip is an archive"):
        client.upload(collection, tmp_path / "letters.zip")


def test_wait_until_indexed_ignores_other_jobs_of_the_batch(client: Client, collection: str) -> None:
    batch = client.open_batch()
    packed = packed_zip({"one.txt": b"The first of the letters.", "broken.pdf": b"%PDF-1.7\nnothing more", "../up.txt": b"No."})
    letters = client.send(collection, ("letters.zip", packed), batch=batch)
    spoilt = client.send(collection, ("spoilt.pdf", b"%PDF-1.7\nnothing at all"), batch=batch)
    read, alone = client.wait_until_indexed(letters), client.wait_until_indexed(spoilt)
    assert sorted((document.name, document.status) for document in read.documents) == [
        ("broken.pdf", "failed"),
        ("one.txt", "ready"),
    ]
    assert sorted((one.name, one.code) for one in read.rejected) == [
        ("broken.pdf", "failed"),
        ("letters.zip: ../up.txt", "left_out"),
    ]
    assert [(one.name, one.code, bool(one.reason)) for one in alone.rejected] == [("spoilt.pdf", "failed", True)]
    assert client.get(batch.id).status == "in_progress"
    counts = client.wait(client.seal(batch)).counts
    assert counts == {"total": 3, "completed": 1, "failed": 2, "cancelled": 0, "expired": 0}


def test_many_files_are_sent_in_several_requests_of_one_batch(
    client: Client, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enginehouse_client.files.MAX_FILES", 2)
    monkeypatch.setattr("enginehouse_client.files.split_into_requests.__defaults__", (2, 10**6))
    files = [(f"{number}.txt", f"text number {number}".encode()) for number in range(5)]
    # Under way in no batch of this ingest, and waited for all the same.
    before = client.send(collection, ("before.txt", b"a line that was sent before\n" * 2000))
    done = client.ingest(collection, [*files, ("copy.txt", b"a line that was sent before\n" * 2000)])
    assert (len(done.documents), done.rejected) == (6, [])
    assert client.document(before.documents[0].id).status == "ready"
    ended = client.get(done.batch)
    assert (ended.status, ended.counts) == ("completed", {"total": 5, "completed": 5, "failed": 0, "cancelled": 0, "expired": 0})


def test_files_join_a_batch_until_it_is_sealed(client: Client, collection: str) -> None:
    batch = client.open_batch(metadata={"from": "scanner-2"})
    for number in range(3):
        client.send(collection, (f"{number}.txt", f"scan number {number}".encode()), batch=batch)
    assert client.get(batch).status == "in_progress"
    client.seal(batch.id)
    ended = client.wait(batch)
    assert (ended.metadata, ended.counts and ended.counts["completed"]) == ({"from": "scanner-2"}, 3)
    # However large the file is, the client receives the rejection rather than a broken connection.
    with pytest.raises(Conflict, match="no more jobs can join") as refusal:
        client.send(collection, ("late.txt", b"late " * 4_000_000), batch=batch)
    assert (refusal.value.code, refusal.value.attempts) == ("batch_sealed", 1)
    with pytest.raises(NotFound):
        client.send(collection, ("stray.txt", b"stray"), batch="job_00000000000000000000000000")


def test_an_ingest_raises_when_its_batch_is_cancelled(
    client: Client, stack: Stack, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enginehouse_client.files.split_into_requests.__defaults__", (1, 10**6))
    batches: list[str] = []

    def cancel(progress: IngestProgress) -> None:
        if not batches:
            newest = stack.client.get("/jobs", params={"kind": "batch"}).json()["data"][0]["id"]
            batches.append(newest)
            stack.client.post(f"/jobs/{newest}/cancel")

    files = [(f"{number}.txt", f"cancelled number {number}".encode()) for number in range(4)]
    with pytest.raises(Conflict, match="no more jobs can join"):
        client.ingest(collection, files, on_progress=cancel)
    assert client.wait(batches[0]).status == "cancelled"


def test_documents_and_collections_are_listed_and_deleted(client: Client, collection: str) -> None:
    document = client.upload(collection, ("a.txt", b"some text to forget"))
    assert (document.status, document.pages) == ("ready", 1)
    assert [listed.id for listed in client.documents(collection)] == [document.id]
    assert client.collection(collection).documents == 1
    assert collection in [listed.name for listed in client.collections()]
    client.delete_document(document.id)
    with pytest.raises(NotFound):
        client.document(document.id)
    assert client.restore_document(document.id).name == "a.txt"
    assert client.document_file(document.id) == b"some text to forget"
    assert client.page_text(document.id, 1).text == "some text to forget"
    assert client.rename_document(document.id, "b.txt").name == "b.txt"
    assert [hit.document for hit in client.search(collection, "forget", filter={"name": "b.txt"})] == ["b.txt"]
    assert client.document_counts(collection).status == {"ready": 1}
    assert list(client.documents(collection, status="failed")) == []
    elsewhere = client.create_collection(f"moved-{collection[-40:]}").name
    assert client.wait(client.move_document(document.id, elsewhere)).completed()["status"] == "ready"
    assert client.document(document.id).collection == elsewhere
    with pytest.raises(InvalidRequest, match=r"collection: .* already"):
        client.move_document(document.id, elsewhere)
    client.delete_collection(elsewhere)
    client.restore_collection(elsewhere)
    client.delete_document(document.id, permanent=True)
    with pytest.raises(NotFound):
        client.restore_document(document.id)
    client.delete_collection(collection)
    with pytest.raises(NotFound):
        list(client.documents(collection))
    assert client.restore_collection(collection).name == collection
    client.delete_collection(collection, permanent=True)
    with pytest.raises(NotFound):
        client.restore_collection(collection)


def test_search_modes_filters_and_reindex(client: Client, collection: str) -> None:
    client.ingest(collection, [("ducks.txt", b"Ducks quack."), ("geese.txt", b"Geese honk.")])
    assert [hit.document for hit in client.search(collection, "quack", mode="keyword")] == ["ducks.txt"]
    assert [hit.document for hit in client.search(collection, "birds", filter={"name": "geese.txt"})] == ["geese.txt"]
    assert client.search(collection, "quack", mode="vector", threshold=0.999, rerank=False) == []
    ended = client.wait(client.reindex(collection, chunk_tokens=100))
    assert ended.completed()["documents"] == 2
    assert len(client.search(collection, "quack honk", neighbours=1)) == 2


def test_models_and_health(client: Client) -> None:
    assert client.health().ready
    assert client.attention() == []
    assert {queue["queue"] for queue in client.overview().queues} >= {"cpu", "io"}
    assert [(model.name, model.state) for model in client.models() if model.default] == [("echo", "ready")]


def test_workers_record_statistics(client: Client) -> None:
    wait_until(lambda: any(client.stats(1).workers["gpu"]), "a sample has the gpu worker")  # type: ignore[index]
    assert client.stats().intervals == 360


def test_any_other_call_can_be_made(client: Client) -> None:
    assert client.request("GET", "/health/live") == {"status": "alive"}


def test_a_file_is_sent_with_progress_and_not_waited_for(client: Client, collection: str, tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("A line of some length, again and again.\n" * 10_000)
    progress: list[UploadProgress] = []
    [document] = client.send(collection, ("deep/name.txt", tmp_path / "large.txt"), on_sent=progress.append).documents
    assert (document.name, document.size) == ("deep/name.txt", 400_000)
    assert progress[-1] == UploadProgress(400_000, 400_000)
    assert len(progress) > 3
    client.cancel(document.job_id)


def test_webhooks_are_registered_and_their_deliveries_listed(client: Client) -> None:
    with Receiver(fail_first(500)) as receiver:
        webhook = client.create_webhook(receiver.url, events=["job.completed"], description="of a test")
        assert webhook.secret is not None
        assert client.webhook(webhook.id).secret is None, "the secret is shown once"
        assert webhook.id in [one.id for one in client.webhooks()]
        job = client.wait(client.generate("deliver this"))

        def statuses() -> list[int | None]:
            return [one.status for delivery in client.deliveries(job=job, webhook=webhook.id) for one in delivery.attempts]

        wait_until(lambda: statuses()[:1] == [500], "the first attempt fails")
        # On a busy machine the second attempt may come before the next line.
        [delivery] = client.deliveries(job=job, webhook=webhook.id)
        client.redeliver(delivery.id)
        wait_until(lambda: client.delivery(delivery.id).status == "delivered", "the delivery succeeds")
        assert delivery.id in [one.id for one in client.deliveries(status="delivered", webhook=webhook.id)]
        received_ids = [
            webhooks.verify(webhook.secret, received.headers, received.body)["data"]["id"] for received in receiver.received
        ]
        # Jobs of the tests before this one may end meanwhile, and are delivered too.
        assert received_ids.count(job.id) >= 2
        assert client.rotate_webhook(webhook.id).secret != webhook.secret
        assert not client.change_webhook(webhook.id, enabled=False).enabled
        client.delete_webhook(webhook.id)
        with pytest.raises(NotFound):
            client.webhook(webhook.id)
    secret = client.webhook_secret()
    assert secret.startswith("whsec_")
    assert client.webhook_secret(rotate=True) != secret
