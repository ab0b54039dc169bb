"""Embedding server: the one process of a stack that holds the embedding models, for all its cpu and io workers.

``python -m workers.index.embedding_server``. It listens on the Unix socket ``ENGINEHOUSE_EMBEDDING_SOCKET``, loads a model on its first
use, and embeds for several callers at once. Until then it imports no model library. Texts are never logged. See
``docs/decisions/embedding-server.md``.
"""

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from shared import logs
from shared.errors import SettingsError
from shared.liveness import liveness_file, touch_until
from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from shared.settings_sources import from_environment
from workers.index.embedder import Embedders, SentenceEmbedder
from workers.index.remote_embedder import pack_error

logger = logging.getLogger(__name__)

BACKLOG = 128


class EmbeddingServer:
    """Answers one request per connection, each in a thread of its own."""

    def __init__(self, embedders: Embedders) -> None:
        self._embedders = embedders

    def serve(self, listener: Listener) -> None:
        """Accept connections for ever."""
        while True:
            connection = listener.accept()
            threading.Thread(target=self.answer, args=[connection], name="embed", daemon=True).start()

    def answer(self, connection: Connection) -> None:
        """Read a request, answer it and close the connection. A caller that has hung up is not an error."""
        with connection, suppress(OSError, EOFError):
            request = json.loads(connection.recv_bytes())
            try:
                header, body = self._run(request)
            except Exception as error:  # the top of this thread: the job of the caller must learn of it
                header, body = pack_error(error), b""
                if not header["error"]["code"]:
                    logger.exception("a request failed")
            connection.send_bytes(json.dumps(header).encode())
            connection.send_bytes(body)

    def _run(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        embedder = self._embedders.for_model(request["model"])
        assert isinstance(embedder, SentenceEmbedder), "hash embedders need no server"
        description = embedder.describe()
        if "texts" in request:
            rows = embedder.embed_rows(request["texts"], role=request["role"], shares=request["shares"])
            return {"revision": description.revision}, rows.astype("float32", copy=False).tobytes()
        header = {
            "revision": description.revision,
            "dimensions": description.dimensions,
            "limit": description.limit,
            "query": description.prefixes.query,
            "passage": description.prefixes.passage,
        }
        return header, description.tokenizer_json.encode()


def listen(path: Path) -> Listener:
    """A listener on a socket that only this user may connect to. Replaces the socket of a process that has ended."""
    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        return Listener(str(path), "AF_UNIX", backlog=BACKLOG)
    finally:
        os.umask(mask)


def embedders_of(settings: Settings) -> Embedders:
    """The models of a server. Each process of the cpu pool embeds one batch at a time, with its share of the processors."""
    return Embedders(
        load_catalogue(settings.models_file),
        threads=max(1, (os.cpu_count() or 1) // settings.cpu_workers),
        device=settings.embedding_device,
        # One more for the embedding jobs of the io pool.
        turns=settings.cpu_workers + 1,
    )


def main() -> None:
    """Serve until a signal. Exits with a message if the settings are invalid."""
    try:
        settings = from_environment(os.environ)
        embedders = embedders_of(settings)
    except SettingsError as error:
        sys.exit("\n".join(error.problems))
    if settings.embedding_socket is None:
        sys.exit("ENGINEHOUSE_EMBEDDING_SOCKET must be the path of the socket to listen on.")
    logs.configure(settings.log_level, form=settings.log_format, levels=settings.log_levels)
    listener = listen(settings.embedding_socket)
    liveness = liveness_file(settings.data_dir, "embedder")
    threading.Thread(target=touch_until, args=[threading.Event(), liveness], name="liveness", daemon=True).start()
    EmbeddingServer(embedders).serve(listener)


if __name__ == "__main__":
    main()
