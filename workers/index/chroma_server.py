"""Chroma server with a password: Chroma's HTTP interface for the calls that the vector store makes, on Chroma's library in Rust.

``python -m workers.index.chroma_server --path FOLDER --port PORT``. The server of the library, ``chroma run``, admits everyone who can
reach its port. This one rejects a request without the password before it reads its body. The password is the one in
``ENGINEHOUSE_CHROMA_URL``. See ``docs/decisions/chroma-server.md``. Chroma's Python package above that library would take a second of CPU
at the start and 60 MB.

A damaged or removed database does not need an operator: the server moves what is left of it to ``damaged`` in its folder and starts
again with an empty one. The vectors are rebuilt from the documents by a reindex.
"""

import argparse
import array
import asyncio
import base64
import hmac
import importlib.util
import json
import logging
import os
import resource
import shutil
import sqlite3
import sys
import threading
import types
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import orjson
import uvicorn

from shared import logs
from shared.errors import SettingsError
from shared.settings_sources import from_environment

logger = logging.getLogger(__name__)

DATABASE = "chroma.sqlite3"
DAMAGED = "damaged"
"""Subfolder for the latest damaged database."""

DAMAGE_SIGNS = ("(code: 11)", "(code: 26)", "(code: 1032)")
"""SQLite's codes for a malformed database, for a file that is no database, and for a database whose file was moved or removed."""

MAX_BODY_BYTES = 256 * 1024 * 1024
"""Largest body. One batch of vectors takes less than 2 MB; a search among 50,000 chunks lists their ids."""

THREADS = 64
"""Requests that run at once. Chroma hangs in those for a collection whose disk was full, until this process is restarted."""

DESCRIPTORS = 65_536
"""Open files and connections, where the system allows it."""

TENANT, DATABASE_NAME = "default_tenant", "default_database"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class Call:
    """A call of the library: the named parts of the path, the parameters of the query and the body of the request."""

    chroma: Any
    names: dict[str, str]
    query: dict[str, str]
    body: Any

    @property
    def collection(self) -> str:
        """The id of a collection."""
        return str(UUID(self.names["id"]))

    @property
    def database(self) -> tuple[str, str]:
        return self.names["tenant"], self.names["database"]

    def condition(self, name: str) -> str | None:
        """A filter in the body, as the library reads it."""
        return json.dumps(self.body[name]) if self.body.get(name) else None


class Database:
    """The SQLite database of Chroma in ``folder``, which the server keeps open as long as it runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._opened = self._identity()

    def restart_if_damaged(self) -> None:
        """If the database cannot be used any more, move it away and start this process again with an empty one."""
        with self._lock:
            if self._identity() != self._opened:
                logger.error(
                    "the index database in %s was removed or replaced while the server ran; starting again", self._folder
                )
            elif is_damaged(self._folder):
                set_aside(self._folder)
            else:
                return
            restart()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / DATABASE).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def is_damaged(folder: Path) -> bool:
    """Whether SQLite finds the database in ``folder`` damaged. One that is missing, locked or unreadable is not."""
    path = folder / DATABASE
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=20)) as file:
            return bool(file.execute("pragma quick_check(1)").fetchone() != ("ok",))
    except sqlite3.OperationalError:
        return False
    except sqlite3.DatabaseError:
        return True


def set_aside(folder: Path) -> None:
    """Move what Chroma has in ``folder`` to its subfolder ``damaged``, in place of what an earlier damage left there."""
    target = folder / DAMAGED
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in folder.iterdir():
        if path.name.startswith(DATABASE) or _is_segment(path.name):
            path.rename(target / path.name)
    logger.error(
        "the index database in %s is damaged; it was moved to %s, and the index is empty now. Rebuild it with "
        "`enginehouse collections check --fix`, or with POST /collections/<collection>/reindex",
        folder,
        target,
    )


def _is_segment(name: str) -> bool:
    """Whether this is the name of a folder with vectors, rather than of something else in a volume."""
    try:
        return bool(UUID(name))
    except ValueError:
        return False


def rust_library() -> Any:
    """Import Chroma's library in Rust, without what the package ``chromadb`` imports with itself. The library finds its errors there."""
    if "chromadb" not in sys.modules:
        found = importlib.util.find_spec("chromadb")
        assert found is not None
        package = types.ModuleType("chromadb")
        package.__path__ = list(found.submodule_search_locations or [])
        sys.modules["chromadb"] = package
    import chromadb_rust_bindings

    return chromadb_rust_bindings


def _chroma_error() -> Any:
    from chromadb.errors import ChromaError

    return ChromaError


def open_chroma(folder: Path) -> Any:
    """Open the database in ``folder``, or create it, as Chroma's package does for a persistent client."""
    rust = rust_library()
    database = rust.SqliteDBConfig(
        hash_type=rust.MigrationHash.MD5, migration_mode=rust.MigrationMode.Apply, url=str(folder / DATABASE)
    )
    # Each index in memory has five files open.
    cached_indexes = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 5
    return rust.Bindings(allow_reset=False, sqlite_db_config=database, persist_path=str(folder), hnsw_cache_size=cached_indexes)


def restart() -> None:
    """Replace this process by a new one with the same arguments. Its sockets close, and clients repeat their requests."""
    os.execv(sys.executable, [sys.executable, "-m", "workers.index.chroma_server", *sys.argv[1:]])


class ChromaServer:
    """The ASGI application. ``password`` may not be empty. ``on_damage`` is called after a request failed in a way that a damaged
    database explains."""

    def __init__(self, chroma: Any, password: str, on_damage: Callable[[], None] = lambda: None) -> None:
        self._chroma = chroma
        self._on_damage = on_damage
        self._password = password.encode()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="request")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/api/v2/heartbeat"):
            await _respond(send, 200, {"nanosecond heartbeat": self._chroma.heartbeat()})
        elif not self._is_authorized(scope["headers"]):
            await _respond(send, 401, _error("AuthError", "The password is missing or wrong."), (b"www-authenticate", b"Basic"))
        elif (body := await _read_body(receive)) is None:
            await _respond(send, 413, _error("InvalidArgumentError", f"The body is larger than {MAX_BODY_BYTES} bytes."))
        else:
            query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("ascii", "replace")).items()}
            run = asyncio.get_running_loop().run_in_executor
            status, result = await run(self._threads, self._handle, method, path, query, body)
            await _respond(send, status, result)
            if status >= 500 and any(sign in result["message"] for sign in DAMAGE_SIGNS):
                await run(self._threads, self._on_damage)

    def _is_authorized(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        scheme, _, credentials = dict(headers).get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            _, _, password = base64.b64decode(credentials, validate=True).partition(b":")
        except ValueError:
            return False
        return hmac.compare_digest(password, self._password)

    def _handle(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        try:
            for route_method, template, operation in ROUTES:
                names = _match_path(template, path) if route_method == method else None
                if names is not None:
                    return 200, operation(Call(self._chroma, names, query, orjson.loads(body) if body else {}))
        except _chroma_error() as error:
            return error.code(), _error(error.name(), error.message())
        except (ValueError, TypeError, KeyError) as error:
            return 400, _error("InvalidArgumentError", f"{type(error).__name__}: {error}")
        except BaseException as error:  # noqa: BLE001 a fault inside Chroma, which as a panic of Rust is no Exception
            return 500, _error("InternalError", f"{type(error).__name__}: {error}")
        return 404, _error("NotFoundError", f"There is no {method} {path}.")


class HttpServer(uvicorn.Server):
    """uvicorn's server, which waits for a signal instead of looking for one ten times a second."""

    async def main_loop(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if not await self.on_tick(0):
            await self._stopping.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        with suppress(AttributeError):  # it has not started
            self._loop.call_soon_threadsafe(self._stopping.set)


async def _read_body(receive: Receive) -> bytes | None:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            return None
    return b"".join(parts)


async def _respond(send: Send, status: int, content: Any, *headers: tuple[bytes, bytes]) -> None:
    # A body that was not read would be taken for the next request.
    close = ((b"connection", b"close"),) if status in (401, 413) else ()
    body = orjson.dumps(content)
    all_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers, *close]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


def _error(name: str, message: str) -> dict[str, str]:
    return {"error": name, "message": message}


def _identity(call: Call) -> Any:
    return {"user_id": "", "tenant": TENANT, "databases": [DATABASE_NAME]}


def _pre_flight_checks(call: Call) -> Any:
    return {"max_batch_size": call.chroma.get_max_batch_size(), "supports_base64_encoding": True}


def _tenant(call: Call) -> Any:
    return {"name": call.chroma.get_tenant(call.names["name"]).name}


def _database(call: Call) -> Any:
    database = call.chroma.get_database(call.names["name"], call.names["tenant"])
    return {"id": database.id, "name": database.name, "tenant": database.tenant}


def _list_collections(call: Call) -> Any:
    limit, offset = (int(call.query[name]) if name in call.query else None for name in ("limit", "offset"))
    return [_as_json(collection) for collection in call.chroma.list_collections(limit, offset, *call.database)]


def _create_collection(call: Call) -> Any:
    get_or_create = bool(call.body.get("get_or_create"))
    configuration, metadata = call.condition("configuration"), call.body.get("metadata")
    return _as_json(
        call.chroma.create_collection(call.body["name"], configuration, None, metadata, get_or_create, *call.database)
    )


def _get_collection(call: Call) -> Any:
    return _as_json(call.chroma.get_collection(call.names["name"], *call.database))


def _delete_collection(call: Call) -> Any:
    call.chroma.delete_collection(call.names["name"], *call.database)
    return {}


def _count(call: Call) -> Any:
    return call.chroma.count(call.collection, *call.database)


def _upsert(call: Call) -> Any:
    vectors = [array.array("f", base64.b64decode(vector)) for vector in call.body["embeddings"]]
    fields = [call.body.get(name) for name in ("metadatas", "documents", "uris")]
    return call.chroma.upsert(call.collection, call.body["ids"], vectors, *fields, *call.database)


def _get(call: Call) -> Any:
    included = call.body.get("include", ["metadatas", "documents"])
    where, where_document = call.condition("where"), call.condition("where_document")
    limit, offset = call.body.get("limit"), call.body.get("offset") or 0
    found = call.chroma.get(call.collection, call.body.get("ids"), where, limit, offset, where_document, included, *call.database)
    return _result(found, included)


def _query(call: Call) -> Any:
    included = call.body.get("include", ["metadatas", "documents", "distances"])
    where, where_document = call.condition("where"), call.condition("where_document")
    ids, vectors, count = call.body.get("ids"), call.body["query_embeddings"], call.body.get("n_results", 10)
    found = call.chroma.query(call.collection, ids, vectors, count, where, where_document, included, *call.database)
    return _result(found, included) | {"distances": found.distances}


def _delete(call: Call) -> Any:
    where, where_document = call.condition("where"), call.condition("where_document")
    ids, limit = call.body.get("ids"), call.body.get("limit")
    return {"deleted": call.chroma.delete(call.collection, ids, where, where_document, limit, *call.database)}


def _result(found: Any, included: Any) -> dict[str, Any]:
    fields = {name: getattr(found, name) for name in ("ids", "embeddings", "documents", "uris", "metadatas")}
    return {**fields, "included": included, "data": None}


def _as_json(collection: Any) -> Any:
    return {
        **{name: getattr(collection, name) for name in ("id", "name", "metadata", "dimension", "tenant", "database")},
        "configuration_json": collection.configuration,
        "serialized_schema": collection.schema,
        "version": 0,
        "log_position": 0,
    }


def _match_path(template: str, path: str) -> dict[str, str] | None:
    """The values of the names in braces, or None if the path is not of this form."""
    wanted, given = template.split("/"), path.split("/")
    names = {name[1:-1]: value for name, value in zip(wanted, given, strict=False) if name.startswith("{")}
    matches = len(wanted) == len(given) and all(names.values())
    return names if matches and template.format(**names) == path else None


def _routes() -> list[tuple[str, str, Callable[[Call], Any]]]:
    database = "/api/v2/tenants/{tenant}/databases/{database}"
    operations: list[tuple[str, Callable[[Call], Any]]] = [
        ("GET /api/v2/auth/identity", _identity),
        ("GET /api/v2/pre-flight-checks", _pre_flight_checks),
        ("GET /api/v2/tenants/{name}", _tenant),
        ("GET /api/v2/tenants/{tenant}/databases/{name}", _database),
        (f"GET {database}/collections", _list_collections),
        (f"POST {database}/collections", _create_collection),
        (f"GET {database}/collections/{{name}}", _get_collection),
        (f"DELETE {database}/collections/{{name}}", _delete_collection),
        (f"GET {database}/collections/{{id}}/count", _count),
        (f"POST {database}/collections/{{id}}/upsert", _upsert),
        (f"POST {database}/collections/{{id}}/get", _get),
        (f"POST {database}/collections/{{id}}/query", _query),
        (f"POST {database}/collections/{{id}}/delete", _delete),
    ]
    routes = []
    for call, operation in operations:
        method, path = call.split(" ")
        routes.append((method, path, operation))
    return routes


ROUTES = _routes()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM. Exits with a message if the password is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        settings = from_environment(os.environ)
    except SettingsError as error:
        sys.exit("\n".join(error.problems))
    password = unquote(urlsplit(settings.chroma_url).password or "")
    if not password:
        sys.exit("ENGINEHOUSE_CHROMA_URL must contain the password of the server, as in http://:PASSWORD@chroma:8000.")
    logs.configure(settings.log_level, form=settings.log_format, levels=settings.log_levels)
    options.path.mkdir(parents=True, exist_ok=True)
    try:
        chroma = open_chroma(options.path)
    except BaseException:  # a panic of Rust is no Exception
        if is_damaged(options.path):
            set_aside(options.path)
            restart()
        raise
    # Only now, as Chroma keeps as many indexes in memory as the limit that it finds allows.
    _allow_descriptors()
    server = ChromaServer(chroma, password, Database(options.path).restart_if_damaged)
    config = uvicorn.Config(
        server,
        host=options.host,
        port=options.port,
        interface="asgi3",
        lifespan="off",
        ws="none",
        http="h11",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
        date_header=False,
    )
    HttpServer(config).run()
    # What was acknowledged is on disk. Python would wait for threads that hang inside Chroma.
    os._exit(0)


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


if __name__ == "__main__":
    main()
