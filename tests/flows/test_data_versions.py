"""Versions of data and releases: newer data is refused, older data is migrated, and what has to be done is reported."""

import http.server
import json
import os
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.local.redis_server import free_port
from cli.main import app
from shared.documents.data_state import DATA_VERSION, KEY, DataState, DataVersionError, read_folder
from shared.documents.descriptions import Description, read_description
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.packaged_files import installed_version
from shared.redis_connection import connect
from shared.settings import Settings
from testing.process_forks import run_command
from testing.stack import Stack
from tests.flows.shelf import Shelf
from workers.index.search_index import SearchIndex
from workers.io.index_monitor import IndexMonitor


def test_data_of_a_newer_release_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    state = DataState(shelf.client, shelf.settings)
    state.check_versions()
    shelf.client.hset(KEY, "version", DATA_VERSION + 1)
    with pytest.raises(DataVersionError, match=f"The data in Redis has version {DATA_VERSION + 1} and was written by a newer"):
        state.check_versions()
    shelf.client.hset(KEY, "version", DATA_VERSION)
    state.check_versions()

    file = tmp_path / "data.json"
    content = json.dumps({"id": "a", "version": DATA_VERSION + 1})
    file.write_text(content)
    command = ["up", "--data", str(tmp_path), "--port", str(free_port()), "--no-flower"]
    done = run_command(command, environment={**os.environ, "ENGINEHOUSE_ALLOW_ROOT": "1"})
    assert done.returncode == 2
    assert f"The data folder {tmp_path} has version {DATA_VERSION + 1} and was written by a newer Enginehouse" in done.stderr
    assert "Install the newer release again, or restore a backup" in done.stderr
    assert file.read_text() == content
    assert not (tmp_path / "redis").exists(), "nothing was started"


def test_data_without_descriptions_is_migrated(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    files = DocumentFiles(shelf.settings.documents_dir)
    before = read_description(files, shelf.document)
    assert isinstance(before, Description)
    files.path(shelf.document, "document.json").unlink()
    (shelf.settings.data_dir / "data.json").unlink()
    assert read_folder(shelf.settings.data_dir) is None
    state = DataState(shelf.client, shelf.settings)
    assert state.note_changes() == "complete"
    # The time of the record is that of Redis.
    created_at = shelf.documents.get("ada", shelf.document).created_at
    assert read_description(files, shelf.document) == replace(before, created_at=created_at)
    assert f"was migrated from version 0 to version {DATA_VERSION}: 1 documents have a description now" in caplog.text
    folder = read_folder(shelf.settings.data_dir)
    assert folder is not None
    assert (folder.version, folder.records, folder.id) == (DATA_VERSION, "complete", shelf.client.hget(KEY, "id"))
    caplog.clear()
    assert state.note_changes() == "complete"
    assert caplog.text == ""


class NewerServer(http.server.BaseHTTPRequestHandler):
    """A server of another release, which has no jobs."""

    def do_GET(self) -> None:
        body = json.dumps({"object": "list", "data": [], "has_more": False, "next": None}).encode()
        self.send_response(200)
        for name, value in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Enginehouse-Version", "99.1\x1b[31m"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_command_warns_of_a_server_of_another_release() -> None:
    assert installed_version(), "the tests run with an installed checkout"
    with http.server.HTTPServer(("127.0.0.1", 0), NewerServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = CliRunner().invoke(app, ["jobs", "--json", "--url", f"http://127.0.0.1:{server.server_port}"])
        server.shutdown()
    assert (done.exit_code, done.stdout) == (0, "[]\n")
    assert "Warning: the server has version 99.1" in done.stderr
    assert f"and this command has {installed_version()}." in done.stderr
    assert "\x1b" not in done.stderr


def test_responses_have_the_version_and_a_collection_to_reindex_is_reported(stack: Stack) -> None:
    for path in ("/health/live", "/jobs/job_unknown", "/metrics"):
        assert stack.client.get(path).headers["Enginehouse-Version"] == installed_version()
    name = "made-by-an-older-version"
    uploaded = stack.client.post(f"/collections/{name}/documents", files={"file": ("a.txt", b"The boilers are painted red.")})
    stack.ended(uploaded.json()["batch"]["id"])

    def search() -> tuple[int, list[str]]:
        answer = stack.post(f"/collections/{name}/search", {"query": "boilers"}, Prefer="wait=60").json()
        return len(answer["data"]), answer["warnings"]

    def reported() -> list[str]:
        return [warning for warning in stack.client.get("/health/ready").json()["warnings"] if "reindexed" in warning]

    assert (search(), reported()) == ((1, []), [])
    client = connect(stack.redis_url())
    chroma = json.loads((stack.data / "state.json").read_text())["chroma"]
    settings = Settings(data_dir=stack.data, redis_url=stack.redis_url(), chroma_url=chroma)
    documents = Documents(client, settings)
    [collection] = [found for found in documents.every_collection() if found.name == name]
    with sqlite3.connect(settings.text_index_dir / f"{collection.index}.db") as index:
        index.execute("pragma user_version = 0")
    IndexMonitor(client, documents, SearchIndex.from_settings(documents, settings)).check_collections()
    expected = "Its keyword index was made by an older version, so that some words are not found."
    assert search() == (1, [expected]), "it is still searched"
    assert reported() == ["1 collection has to be reindexed: `enginehouse collections check` shows which"]
    stack.ended(stack.post(f"/collections/{name}/reindex", {}).json()["id"])
    assert (search(), reported()) == ((1, []), [])
