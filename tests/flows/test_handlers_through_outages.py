"""Handlers of all pools while Redis breaks off at each of their calls: every job completes, once, with the right result.

Each handler runs once undisturbed, which counts its calls to Redis. Then it runs again for each of them: the connection breaks before
the call, or its reply is lost, and stays broken until the attempt has ended. At a few of the calls Redis itself is killed.
"""

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cli.local.redis_server import RedisServer, free_port, start_redis
from shared.documents.files import DocumentFiles
from shared.documents.media_types import detect_media_type
from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.ids import CLAIM, DOCUMENT, JOB, new_id
from shared.jobs.models import Job, Outcome, Status
from shared.jobs.queue_names import CPU_QUEUE, IO_QUEUE
from shared.jobs.submission import Submission
from shared.models.catalogue import ECHO, ModelEntry, load_catalogue
from shared.redis_connection import connect
from shared.sessions.store import Sessions
from shared.settings import Settings
from shared.webhooks.deliveries import Deliveries
from testing.chroma_server import ChromaServer
from testing.fault_rig.breaking_client import Breaks, breaking_client
from testing.receiver import Receiver, status
from tests.conftest import JobSystem
from workers.cpu.handlers import cpu_handlers
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.generation import GenerationHandler
from workers.gpu.tokenization import TextCodec
from workers.index.embedder import Embedders
from workers.index.vector_store import VectorStore
from workers.io.handlers import io_handlers
from workers.io.webhooks.dispatcher import WebhookDispatcher
from workers.runtime.attempt import Attempt, Handler
from workers.runtime.attempt_runner import AttemptRunner
from workers.runtime.event_publisher import EventPublisher

MODEL = "vectors"
GPU_QUEUE = "gpu.echo"
OWNER = "ada"
MODELS = (
    ModelEntry(name="echo", url="echo:0", engine=ECHO),
    ModelEntry(name=MODEL, url="hash:384", task="embed", max_context=256),
)
TEXT = b"The boiler must be inspected on Mondays.\fSecond page: the steam may get very hot."
# Calls at which Redis itself is killed, as fractions of all calls of a handler.
KILLS = (0.0, 0.5, 1.0)


class MovedClock:
    """The time of this machine, moved on by a test: jobs wait between two attempts."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def __call__(self) -> int:
        return int(time.time() * 1000) + self.offset_ms


@dataclass
class Rig:
    """The handlers of all pools with a client that breaks, and everything else with one that does not."""

    server: RedisServer
    settings: Settings
    handlers: Mapping[str, Mapping[str, Handler]]
    breaks: Breaks
    clock: MovedClock = field(default_factory=MovedClock)

    def __post_init__(self) -> None:
        self.client = connect(self.server.url)
        self.system = JobSystem(self.client, self.settings, lambda queue, count: None, clock=self.clock)
        self.documents = Documents(self.client, self.settings)
        self.files = DocumentFiles(self.settings.documents_dir)
        self.vectors = VectorStore(self.settings.chroma_url)

    def collection(self) -> Collection:
        """A new collection."""
        return self.documents.ensure_collection(OWNER, f"c{time.monotonic_ns()}", MODEL)

    def upload(self, collection: Collection, data: bytes = TEXT) -> str:
        """Register a document and submit its ingest. Returns the id of the job."""
        document_id, job_id = new_id(DOCUMENT), new_id(JOB)
        stored = self.files.store(document_id, io.BytesIO(data), limit=len(data))
        self.documents.register(
            collection,
            document_id=document_id,
            name="boilers.txt",
            size=stored.size,
            sha256=stored.sha256,
            media_type=detect_media_type(self.files.path(document_id, "original")),
            job_id=job_id,
        )
        return self.submit("ingest", CPU_QUEUE, {"document_id": document_id, "collection_id": collection.id}, id=job_id)

    def ready_collection(self) -> Collection:
        """A collection with one document that is ready."""
        collection = self.collection()
        assert self.run(self.upload(collection)).status is Status.COMPLETED
        return self.documents.collection_by_id(collection.id)

    def submit(self, kind: str, queue: str, spec: Mapping[str, Any], **more: Any) -> str:
        document = str(spec.get("document_id", "")) if kind == "ingest" else ""
        return self.system.submitter.submit_job(
            Submission(kind=kind, queue=queue, spec=spec, owner=OWNER, document=document, **more)
        ).id

    def run(self, job_id: str, *, after_attempt: Callable[[Job], None] = lambda job: None) -> Job:
        """Run attempts at a job, and at those before it in its queue, until it has ended or waits in another queue."""
        first = self.job(job_id).queue
        while not (job := self.job(job_id)).status.final and job.queue == first:
            self.system.maintenance.reap(leases=False)
            claimed = self.system.transitions.claim(first, "w", new_id(CLAIM))
            assert claimed is not None
            publisher = EventPublisher(self.system.transitions)
            runner = AttemptRunner(self.system.transitions, publisher, self.handlers[first], sleep=self.start_redis)
            runner.run_attempt(Attempt(claimed, publisher.enqueue_buffer))
            self.breaks.heal()
            self.start_redis()
            after_attempt(ran := self.job(job_id))
            if not ran.status.final:
                self.clock.offset_ms += 120_000
        return job

    def job(self, job_id: str) -> Job:
        job = self.system.queries.get_job(job_id)
        assert job is not None
        return job

    def job_spec(self, job: Job) -> dict[str, str]:
        spec: Any = self.system.client.hget(f"eh:job:{job.id}:input", "spec")
        return dict(json.loads(spec))

    def start_redis(self, seconds: float = 0.0) -> None:
        """Start Redis if it was killed: the pause of a client that waits for it."""
        if self.server.process.poll() is not None:
            self.server = start_redis(self.server.folder, self.server.port)

    def close(self) -> None:
        self.server.stop()


@dataclass(frozen=True)
class Case:
    """``submit`` prepares a job and returns its id; ``outcome`` is what must be the same, however often the job was interrupted."""

    submit: Callable[[Rig], str]
    outcome: Callable[[Rig, Job], Any]


def ingest_outcome(rig: Rig, job: Job) -> Any:
    document_id = str(rig.system.client.hget(f"eh:job:{job.id}", "document"))
    document = rig.documents.get(OWNER, document_id)
    vectors = rig.vectors.count_vectors(document.collection_id, document_id)
    texts = TextIndex(rig.settings.text_index_dir).count_chunks(document.collection_id, document_id)
    assert job.result is not None
    return document.status, document.chunks, vectors, texts, job.result["status"], job.result["pages"], job.result["chunks"]


def submit_move(rig: Rig) -> str:
    source, target = rig.ready_collection(), rig.collection()
    [document_id] = rig.documents.document_ids(source.id)
    return rig.submit("ingest", CPU_QUEUE, {"document_id": document_id, "collection_id": target.id, "moved_from": source.id})


def move_outcome(rig: Rig, job: Job) -> Any:
    source = rig.job_spec(job)["moved_from"]
    document_id = rig.job_spec(job)["document_id"]
    left = list(rig.documents.document_ids(source)), rig.vectors.count_vectors(source, document_id)
    return left, rig.documents.get(OWNER, document_id).collection_id == job.collection, *ingest_outcome(rig, job)


def submit_unpack(rig: Rig) -> str:
    collection, archive = rig.collection(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for number in range(2):
            members.writestr(f"{number}.txt", f"Member {number} of archive {collection.name}.")
    job_id = new_id(JOB)
    archive_id = job_id.replace(JOB, DOCUMENT, 1)
    DocumentFiles(rig.settings.archives_dir).store(archive_id, io.BytesIO(archive.getvalue()), limit=10**6)
    spec = {"archive_id": archive_id, "collection_id": collection.id, "name": "two.zip"}
    return rig.submit("unpack", CPU_QUEUE, spec, id=job_id)


def unpack_outcome(rig: Rig, job: Job) -> Any:
    assert job.result is not None
    members = [member["document_id"] for member in job.result["members"]]
    jobs = [rig.documents.get(OWNER, member).job_id for member in members]
    for member in jobs:
        assert rig.system.transitions.cancel(member, OWNER)[0] in ("cancelled", "ended")
    listed = sum(1 for _ in rig.documents.document_ids(rig.documents.get(OWNER, members[0]).collection_id))
    names = [member["name"] for member in job.result["members"]]
    return names, job.result["documents"], job.result["duplicates"], job.result["skipped"], listed


def reindex_outcome(rig: Rig, job: Job) -> Any:
    collection = rig.documents.collection_by_id(rig.job_spec(job)["collection_id"])
    [document_id] = rig.documents.document_ids(collection.id)
    indexes = rig.vectors.list_indexes(collection.id)
    return collection.next_index, len(indexes), rig.vectors.count_vectors(collection.index, document_id), job.result


def submit_deletion(rig: Rig) -> str:
    collection = rig.ready_collection()
    [document_id] = rig.documents.document_ids(collection.id)
    return rig.submit("delete", IO_QUEUE, {"document_id": document_id, "collection_id": collection.id})


def delete_outcome(rig: Rig, job: Job) -> Any:
    collection = rig.job_spec(job)["collection_id"]
    assert job.result is not None  # it counts the documents that its own attempt deleted
    return list(rig.documents.document_ids(collection)), rig.vectors.count_by_document(collection), job.result["deleted"]


def submit_search(rig: Rig) -> str:
    return rig.submit("search", IO_QUEUE, {"query": "boiler", "collection_id": rig.ready_collection().id, "top_k": 2})


def search_outcome(rig: Rig, job: Job) -> Any:
    assert job.result is not None
    return [(hit["text"], round(hit["score"], 3)) for hit in job.result["hits"]]


def submit_retrieval(rig: Rig) -> str:
    spec = {"prompt": "boiler", "collection": rig.ready_collection().id, "retrieval": {"top_k": 1}, "then": "gpu.elsewhere"}
    return rig.submit("generate", IO_QUEUE, spec)


def retrieval_outcome(rig: Rig, job: Job) -> Any:
    [context] = rig.system.client.hmget(f"eh:job:{job.id}:input", "context")
    assert rig.system.transitions.cancel(job.id, OWNER)[0] == "cancelled"
    return job.status, job.queue, str(context).count('"text":')


def submit_chat(rig: Rig) -> str:
    session = f"s{time.monotonic_ns()}"
    Sessions(rig.client, rig.settings).open(session, OWNER)
    return rig.submit("generate", GPU_QUEUE, {"message": "hello", "max_tokens": 200}, session=session)


def chat_outcome(rig: Rig, job: Job) -> Any:
    messages = Sessions(rig.client, rig.settings).messages(job.session, OWNER)
    assert job.result is not None
    return job.result["text"], [(message["role"], message["content"]) for message in messages]


CASES = {
    "ingest": Case(lambda rig: rig.upload(rig.collection()), ingest_outcome),
    "move": Case(submit_move, move_outcome),
    "unpack": Case(submit_unpack, unpack_outcome),
    "reindex": Case(
        lambda rig: rig.submit(
            "reindex", CPU_QUEUE, {"collection_id": rig.ready_collection().id, "embedding_model": MODEL, "chunk_tokens": 16}
        ),
        reindex_outcome,
    ),
    "delete a document": Case(submit_deletion, delete_outcome),
    "delete a collection": Case(
        lambda rig: rig.submit("delete", IO_QUEUE, {"collection_id": rig.ready_collection().id}), delete_outcome
    ),
    "search": Case(submit_search, search_outcome),
    "retrieval": Case(submit_retrieval, retrieval_outcome),
    "chat": Case(submit_chat, chat_outcome),
}


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    server = ChromaServer(tmp_path_factory.mktemp("chroma"), free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, chroma: ChromaServer) -> Iterator[Rig]:
    folder: Path = tmp_path_factory.mktemp("rig")
    server = start_redis(tmp_path_factory.mktemp("redis"))
    settings = replace(Settings(data_dir=folder, redis_url=server.url), chroma_url=chroma.url, load_on_demand=False)
    breaks = Breaks()
    client = breaking_client(server.url, breaks)
    models = folder / "models.json"
    models.write_text(json.dumps([entry.model_dump(exclude_defaults=True) for entry in MODELS]))
    settings = replace(settings, models_file=models)
    running: list[GenerationHandler] = []
    engine = EngineClient(MODELS[0], settings, on_step=lambda step: running[0].on_step(step))
    running.append(GenerationHandler(MODELS[0], TextCodec(MODELS[0]), engine, Sessions(client, settings)))
    engine.start_engine()
    handlers = {
        CPU_QUEUE: cpu_handlers(client, settings),
        IO_QUEUE: io_handlers(client, settings, Embedders(load_catalogue(settings.models_file), threads=1)),
        GPU_QUEUE: {"generate": running[0].run_generation},
    }
    rig = Rig(server, settings, handlers, breaks)
    yield rig
    engine.stop_engine()
    rig.close()


def check_ended_well(job: Job) -> None:
    """It completed after attempts that were interrupted, which cost it neither a retry nor a lost attempt."""
    assert (job.lost, job.retries, job.error) == (0, 0, None)
    *earlier, last = job.attempts
    assert last.outcome in (Outcome.COMPLETED, Outcome.HANDED_OVER), job.attempts
    assert {(attempt.outcome, attempt.error) for attempt in earlier} <= {(Outcome.RELEASED, "redis_unavailable")}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow_fault) if name in ("move", "unpack", "reindex") else name for name in CASES],
)
def test_a_job_completes_wherever_redis_breaks_off(rig: Rig, name: str) -> None:
    case = CASES[name]
    undisturbed = case.submit(rig)
    rig.breaks.arm(0)
    job = rig.run(undisturbed)
    calls, expected = rig.breaks.calls, case.outcome(rig, job)
    assert calls > 0
    kills = {1 + round(fraction * (calls - 1)) for fraction in KILLS}
    for at in range(1, calls + 1):
        # The state before a call is nearly that after the one before it.
        for after in (False, True) if at % 3 == 1 else (True,):
            kill = rig.server.kill if at in kills and after else lambda: None
            interrupted = case.submit(rig)
            rig.breaks.arm(at, after=after, when_broken=kill)
            job = rig.run(interrupted)
            check_ended_well(job)
            assert case.outcome(rig, job) == expected, f"broken off at call {at} of {calls}, {after=}"


def test_a_delivery_is_made_once_wherever_redis_breaks_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    client = breaking_client(rig.server.url, rig.breaks)
    monkeypatch.setattr("workers.io.webhooks.dispatcher.connect", lambda url: client)
    deliveries = Deliveries(rig.client)
    rig.clock.offset_ms = 0
    with Receiver(status(200)) as receiver:
        quick = replace(rig.settings, webhook_allow="127.0.0.0/8", webhook_seconds=5.0)
        dispatcher = WebhookDispatcher(quick, "io1", threading.Event())
        webhook = {
            "url": receiver.url,
            "authority": receiver.url.split("/")[2],
            "events": ["job.completed"],
            "endpoint": "",
            "secret": "",
        }

        def deliver(at: int, *, after: bool = False) -> int:
            """Deliver the end of a job, breaking off at a call until a moment later. Returns the number of calls."""
            job = rig.submit("generate", GPU_QUEUE, {"prompt": "hello", "max_tokens": 3}, webhook=webhook)
            assert rig.run(job).status is Status.COMPLETED
            rig.breaks.arm(at, after=after, when_broken=lambda: threading.Timer(0.02, rig.breaks.heal).start())
            assert dispatcher.deliver_one()
            [delivery] = deliveries.list_for_job(job)
            assert (delivery.status, delivery.number) == ("delivered", 1), (at, after)
            assert sum(request.id == delivery.id for request in receiver.received) == 1
            return rig.breaks.calls

        calls = deliver(0)
        assert calls > 2
        for at in range(1, calls + 1):
            deliver(at)
            deliver(at, after=True)


@pytest.mark.parametrize("name", ["ingest", "reindex", "delete a document", "search"])
def test_an_outage_of_the_index_costs_no_retry(rig: Rig, chroma: ChromaServer, name: str) -> None:
    case = CASES[name]
    expected = case.outcome(rig, rig.run(case.submit(rig)))
    interrupted = case.submit(rig)
    outages = 0

    def end_outage(job: Job) -> None:
        nonlocal outages
        outages += 1
        if outages == rig.settings.max_retries + 1:
            chroma.start()

    chroma.kill()
    job = rig.run(interrupted, after_attempt=end_outage)
    assert (job.retries, job.lost, job.error) == (0, 0, None)
    assert [(attempt.outcome, attempt.error) for attempt in job.attempts[:-1]] == [(Outcome.RELEASED, "index_unavailable")] * (
        rig.settings.max_retries + 1
    )
    assert case.outcome(rig, job) == expected
