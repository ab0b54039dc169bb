"""Remote embedder: embeds texts with a model of the embedding server of this host, over a Unix socket.

One connection per call, so that nothing has to be shared between threads or survive a fork. Each message is one frame of
``multiprocessing.connection``, which puts its length in front; nothing is pickled.
"""

import copy
import json
import logging
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, Self

from shared.errors import EmbedderUnavailable, EmbeddingModelMismatch, InternalError, ModelUnavailable
from workers.index.model_description import DescribedEmbedder, ModelDescription
from workers.index.prefixes import Prefixes, TextRole

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.25
"""How often a call that waits for its answer asks whether its job is to stop."""
RETRY_SECONDS = 15.0
"""How long a call waits for a server that does not accept connections. Its supervisor restarts it after half a second at first."""
PAUSE_SECONDS = 0.2
MAX_LOST_CALLS = 3
"""How often the server may end during one call before its texts are suspected of ending it."""

ERRORS = {kind.code: kind for kind in (ModelUnavailable, EmbeddingModelMismatch)}
"""Errors of the server that a call raises as they are."""


@dataclass
class _Cache:
    """What this process knows about a model."""

    description: ModelDescription | None = None


class RemoteEmbedder(DescribedEmbedder):
    """One model of the embedding server at ``socket``. Safe to share between threads and across forks.

    Closing the connection is all that a caller does to give up, and each answer names the revision of its vectors.

    Every method that needs the server raises EmbedderUnavailable while it cannot be reached, ModelUnavailable if the model cannot be
    loaded, and EmbeddingModelMismatch if the server does not have it.
    """

    def __init__(
        self,
        model: str,
        socket: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.model = model
        self._socket = socket
        self._clock = clock
        self._sleep = sleep
        self._raise_if_stopped: Callable[[], None] = lambda: None
        self._cache = _Cache()

    def stopped_by(self, raise_if_stopped: Callable[[], None]) -> Self:
        """This embedder for one job: a call that waits for the server raises what ``raise_if_stopped`` does."""
        embedder = copy.copy(self)
        embedder._raise_if_stopped = raise_if_stopped
        return embedder

    @property
    def is_loaded(self) -> bool:
        """Whether the server had loaded the model when this process used it last."""
        return self._cache.description is not None

    def describe(self) -> ModelDescription:
        description = self._cache.description
        if description is None:
            header, tokenizer = self._call({"model": self.model})
            prefixes = Prefixes(query=header.pop("query"), passage=header.pop("passage"))
            description = ModelDescription(model=self.model, prefixes=prefixes, tokenizer_json=tokenizer.decode(), **header)
            self._cache.description = description
        return description

    def embed_texts(self, texts: list[str], *, role: TextRole = "raw", shares: int = 1) -> list[list[float]]:
        """One vector of length 1 for each text. ``shares`` multiplies the number of threads that the server uses."""
        known = self.describe().revision
        header, body = self._call({"model": self.model, "texts": texts, "role": role, "shares": shares})
        if header["revision"] != known:
            # Vectors of two revisions must not be mixed. The next attempt compares the new one with that of the collection.
            self._cache.description = None
            raise EmbedderUnavailable(f"The weights or prefixes of the embedding model {self.model} were replaced.", outage=True)
        numbers = array("f")
        numbers.frombytes(body)
        length = len(numbers) // max(1, len(texts))
        return [numbers[start : start + length].tolist() for start in range(0, len(numbers), max(1, length))]

    def _call(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Send a request until the server answers it."""
        message = json.dumps(request).encode()
        give_up_at, lost = self._clock() + RETRY_SECONDS, 0
        while True:
            connected = False
            try:
                with Client(str(self._socket), "AF_UNIX") as connection:
                    connected = True
                    connection.send_bytes(message)
                    while not connection.poll(CHECK_SECONDS):
                        self._raise_if_stopped()
                    header, body = json.loads(connection.recv_bytes()), connection.recv_bytes()
                break
            except (OSError, EOFError) as error:
                lost += connected
                if lost == MAX_LOST_CALLS:
                    raise EmbedderUnavailable(
                        f"The embedding server ended {lost} times while it worked for this job. Its log may say why."
                    ) from error
                if connected:
                    logger.warning("the embedding server ended during a call; trying again")
                    give_up_at = self._clock() + RETRY_SECONDS
                elif self._clock() >= give_up_at:
                    raise EmbedderUnavailable(f"The embedding server cannot be reached ({error}).", outage=True) from error
            self._raise_if_stopped()
            self._sleep(PAUSE_SECONDS)
        if "error" in header:
            raise _error_of(header["error"])
        return header, body


def _error_of(error: dict[str, str]) -> Exception:
    kind = ERRORS.get(error["code"], InternalError)
    return kind(error["message"])


def pack_error(error: BaseException) -> dict[str, Any]:
    """The header of an answer that reports an error."""
    if isinstance(error, tuple(ERRORS.values())):
        return {"error": {"code": error.code, "message": error.message}}  # type: ignore[attr-defined]
    return {
        "error": {"code": "", "message": f"The embedding server failed with {type(error).__name__}. Its log has the details."}
    }
