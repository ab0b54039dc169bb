"""Backup and restore: everything is there again elsewhere, and a damaged backup restores nothing."""

import json
import tarfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from cli.admin.backup import create_backup
from cli.admin.recovery import FULL_QUEUE_SECONDS, UPLOAD_SECONDS, Recoverer, recover_documents
from cli.admin.restore import restore_backup
from cli.errors import CommandError
from cli.local.redis_server import start_redis
from cli.output import Output
from shared.documents.data_state import DATA_VERSION, DataState
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queue_names import CPU_QUEUE
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.jobs.usage import UsageLedger, UsageTotals
from shared.redis_connection import connect
from testing.chroma_server import ChromaServer
from tests.flows.shelf import Shelf
from workers.index.search_index import SearchIndex
from workers.index.vector_store import VectorStore

QUIET = Output(as_json=True)


def test_a_backup_restored_elsewhere_has_everything(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = shelf.settings.documents_dir / shelf.document / "original"
    original.write_bytes(b"boilers")
    output = shelf.settings.request_batches_dir / "job_1" / "output.1"
    output.parent.mkdir(parents=True)
    for file in (output, shelf.settings.files_dir / "file-1", shelf.settings.files_dir / ".file-2"):
        file.write_bytes(b"requests")
    (shelf.settings.data_dir / "keys-required").touch()
    shelf.client.set("eh:test", "kept", ex=1000)
    shelf.client.hset("eh:usage:2026-01-31:ada", "generate\nm\n=uma", "2 7 0 5")
    shelf.client.sadd("eh:usage:2026-01-31", "ada")
    for key in ("eh:usage:2026-01-31:ada", "eh:usage:2026-01-31"):
        shelf.client.expire(key, 1000)
    folder, archive = tmp_path / "backup", tmp_path / "backup.tar"
    for target in (folder, archive):
        create_backup(shelf.client, shelf.settings.redis_url, shelf.settings, target, out=QUIET)
    with tarfile.open(archive) as opened:
        members = {member.name: member.mode for member in opened}
    assert set(members) == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(members.values()) == {0o600}
    assert not list(shelf.settings.data_dir.glob(".backup-*"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["documents"], manifest["vectors"]) == (1, {shelf.collection.index: 1})

    elsewhere = replace(shelf.settings, data_dir=tmp_path / "elsewhere")
    restore_backup(archive, elsewhere, with_redis=True, external_chroma=False, out=QUIET)
    assert (elsewhere.documents_dir / shelf.document / "original").read_bytes() == b"boilers"
    kept = [str(path.relative_to(elsewhere.files_dir)) for path in elsewhere.files_dir.rglob("*") if path.is_file()]
    assert sorted(kept) == ["batches/job_1/output.1", "file-1"]
    assert (elsewhere.data_dir / "keys-required").exists()
    assert not list(elsewhere.data_dir.glob(".restore-*"))
    with pytest.raises(CommandError, match="is in use"):
        restore_backup(archive, elsewhere, with_redis=True, external_chroma=False, out=QUIET)
    server = start_redis(elsewhere.data_dir / "redis")
    chroma_elsewhere = ChromaServer(elsewhere.data_dir / "chroma", shelf.chroma.port)
    shelf.chroma.kill()
    chroma_elsewhere.start()
    try:
        client = connect(server.url)
        assert client.get("eh:test") == "kept"
        [usage] = UsageLedger(client).rows(date(2026, 1, 31), date(2026, 1, 31))
        assert (usage.end_user, usage.totals) == ("uma", UsageTotals(prompt_tokens=7, completion_tokens=5, jobs=2))
        documents = Documents(client, elsewhere)
        assert documents.find(shelf.document) == shelf.documents.find(shelf.document)
        assert DataState(client, elsewhere).records() == "complete"
        restored = Shelf.__new__(Shelf)
        restored.documents, restored.client, restored.settings = documents, client, elsewhere
        restored.index = SearchIndex(documents, TextIndex(elsewhere.text_index_dir), VectorStore(chroma_elsewhere.url))
        for mode in ("vector", "keyword", "hybrid"):
            assert restored.search(mode) == 1
        capsys.readouterr()
        recover_documents(client, elsewhere, out=Output(as_json=False))
        assert capsys.readouterr().out == (
            "Checked 1 folder of documents: each has its record, so there was nothing to recover.\n"
        )
        client.delete(f"eh:document:{shelf.document}")
        recover_documents(client, elsewhere, out=Output(as_json=False), sleep=lambda seconds: None)
        printed = capsys.readouterr()
        assert printed.out.startswith("Checked 1 folder of documents: 1 had no record. 1 document recovered: ")
        assert "1 folder of 1 without a record" in printed.err
    finally:
        chroma_elsewhere.kill()
        server.stop()


def test_a_recovery_waits_while_the_queue_is_full(shelf: Shelf) -> None:
    settings = replace(shelf.settings, max_queued=1, max_queued_per_owner=1)
    wake = CeleryBroker(shelf.client).wake
    earlier = (
        JobSubmitter(shelf.client, settings, wake).submit_job(Submission(kind="ingest", queue=CPU_QUEUE, spec={}, owner="ada")).id
    )
    shelf.client.delete(f"eh:document:{shelf.document}")
    reports: list[str] = []
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if waits.count(FULL_QUEUE_SECONDS) == 2:
            JobTransitions(shelf.client, settings, wake).cancel(earlier, "ada")

    recovery = Recoverer(shelf.client, settings, report=reports.append, sleep=sleep).recover()
    assert list(recovery.jobs) == [shelf.document], "it has no chunks, so it is indexed again"
    assert waits == [UPLOAD_SECONDS, FULL_QUEUE_SECONDS, FULL_QUEUE_SECONDS]
    _, report = reports
    assert report.endswith("Waiting until a.txt can be indexed again."), "once, whatever the number of waits"


def test_a_damaged_backup_restores_nothing(shelf: Shelf, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "backup", replace(shelf.settings, data_dir=tmp_path / "elsewhere")
    create_backup(shelf.client, shelf.settings.redis_url, shelf.settings, target, out=QUIET)
    with pytest.raises(CommandError, match="exists already"):
        create_backup(shelf.client, shelf.settings.redis_url, shelf.settings, target, out=QUIET)

    def refusal() -> str:
        with pytest.raises(CommandError) as caught:
            restore_backup(target, elsewhere, with_redis=True, external_chroma=False, out=QUIET)
        assert {path.name for path in elsewhere.data_dir.iterdir()} == {"lock"}, "nothing remains of the attempt"
        return str(caught.value)

    victim = target / "documents" / shelf.document / "document.json"
    content = victim.read_bytes()
    victim.write_bytes(content.replace(b"a.txt", b"b.txt"))
    assert "1 files differ" in refusal()
    victim.unlink()
    assert "1 files differ" in refusal()
    victim.write_bytes(content)
    manifest = target / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(f'"data_version": {DATA_VERSION}', f'"data_version": {DATA_VERSION + 1}'))
    assert "newer Enginehouse" in refusal()
    manifest.unlink()
    assert "not a complete backup" in refusal()
    with pytest.raises(CommandError, match="cannot be read"):
        restore_backup(tmp_path / "missing.tar", elsewhere, with_redis=True, external_chroma=False, out=QUIET)


def test_a_user_without_the_right_to_replicate_is_told_which_login_to_use(shelf: Shelf, tmp_path: Path) -> None:
    shelf.client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@connection")
    url = shelf.settings.redis_url.replace(shelf.settings.redis_url.split("@")[0], "redis://reader:secret")
    with pytest.raises(CommandError, match="the user `default`"):
        create_backup(shelf.client, url, shelf.settings, tmp_path / "backup", out=QUIET)
    assert not list(tmp_path.glob("backup*"))
    shelf.client.execute_command("ACL", "DELUSER", "reader")
