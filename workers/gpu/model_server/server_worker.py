"""Model worker of a server: it watches the server, claims jobs only while it answers, and runs them on it.

It needs no GPU, no weights and no tokenizer.
"""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

from shared.errors import EnginehouseError, ModelUnavailable
from shared.models.catalogue import ModelEntry
from shared.redis_connection import STEADY_RETRIES, connect
from shared.sessions.store import Sessions
from shared.settings import Settings
from workers.gpu.engine.messages import Heartbeat
from workers.gpu.engine_client.throughput_meter import ThroughputMeter
from workers.gpu.model_server.connection import ServerConnection
from workers.gpu.model_server.generation import ServerGenerationHandler
from workers.runtime.attempt import Attempt, Handler, Handover, Result
from workers.runtime.worker_runtime import WorkerRuntime

logger = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
ABSENT_CHECK_SECONDS = 1.0
CHECK_TIMEOUT_SECONDS = 10.0
# A busy server may be slow to answer a check, so only several in a row mean that it is away.
SLOW_CHECKS = 3


class ServerModelWorker:
    """Serves one model that runs on an OpenAI-compatible server."""

    def __init__(self, entry: ModelEntry, settings: Settings) -> None:
        self._entry = entry
        self._connection = ServerConnection(entry, hang_seconds=settings.engine_hang_seconds)
        sessions = Sessions(connect(settings.redis_url, retries=STEADY_RETRIES), settings)
        self._handler = ServerGenerationHandler(entry, self._connection, sessions)
        self._throughput = ThroughputMeter()
        self._failure: EnginehouseError | None = None
        self._closing = threading.Event()
        self._phase = ""
        self._losses = 0
        self._slow = 0

    def begin_loading(self, runtime: WorkerRuntime) -> None:
        """Start watching the server and return at once; its state goes to ``runtime``."""
        threading.Thread(target=self._watch, args=[runtime], name="watch", daemon=True).start()

    def unload_model(self) -> None:
        """Close all connections, which cancels what still runs on the server."""
        self._closing.set()
        self._connection.on_away.set()
        self._connection.close()

    def engine_details(self) -> dict[str, Any]:
        """The load of this worker. What others do on the server is not known."""
        load = self._handler.load
        heartbeat = Heartbeat(
            steps=load.chunks,
            tokens=load.tokens,
            running=load.running,
            waiting=0,
            cache_use=0.0,
            prompt_tokens=load.prompt_tokens,
            cached_tokens=load.cached_tokens,
        )
        details = {"engine": self._entry.engine, "in_flight": self._entry.max_in_flight, "restarts": self._losses}
        counters = {name: value for name, value in vars(heartbeat).items() if name not in ("cache_use", "waiting")}
        return details | counters | self._throughput.update_rates(heartbeat, time.monotonic())

    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by job kind."""
        return {"generate": self.generate, "tokenize": self.tokenize}

    def generate(self, attempt: Attempt) -> Result | Handover:
        """Handle a generation job."""
        self._raise_failure()
        return self._handler.run(attempt)

    def tokenize(self, attempt: Attempt) -> Mapping[str, Any]:
        """Handle a job that needs only the tokenizer."""
        self._raise_failure()
        return self._handler.run_tokenization(attempt)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _watch(self, runtime: WorkerRuntime) -> None:
        while not self._closing.is_set():
            self._connection.on_away.clear()
            phase, message = self._check()
            if self._closing.is_set():
                return
            self._report(runtime, phase, message)
            # A request that finds the server away ends the pause.
            self._connection.on_away.wait(CHECK_SECONDS if phase == "ready" else ABSENT_CHECK_SECONDS)
            if phase != "ready":
                self._closing.wait(ABSENT_CHECK_SECONDS)

    def _check(self) -> tuple[str, str]:
        """The phase of this worker, and why it is not ready."""
        if (pause := self._connection.pause_seconds) > ABSENT_CHECK_SECONDS:
            # Jobs that are claimed now would wait here, and could not be taken by others.
            return "loading", f"the server has reached its rate limit and asks for a pause of {pause:.0f} s"
        try:
            listing = self._connection.run(
                self._connection.get(f"{self._connection.base_url}/models"), timeout=CHECK_TIMEOUT_SECONDS
            )
        except ModelUnavailable as error:
            return "failed", error.message
        except TimeoutError:
            self._slow += 1
            if self._phase == "ready" and self._slow < SLOW_CHECKS:
                return "ready", ""
            return "loading", f"waiting for the server at {self._entry.url}, which does not answer"
        except CancelledError:
            return "loading", "stopping"
        except EnginehouseError as error:
            return "loading", f"waiting for the server at {self._entry.url}: {error.message}"
        except Exception as error:  # whatever a foreign server sends
            logger.exception("the check of the server of model %s failed", self._entry.name)
            return "loading", f"the check of the server failed: {type(error).__name__}"
        self._slow = 0
        return self._find_model(listing)

    def _find_model(self, listing: Any) -> tuple[str, str]:
        models = listing.get("data") if isinstance(listing, dict) else None
        if not isinstance(models, list):
            return "failed", f"{self._entry.url} is not the base URL of an OpenAI-compatible server: /models lists no models"
        found = {str(model.get("id")): model for model in models if isinstance(model, dict)}
        name = self._connection.remote_model
        # llama.cpp has one model, which answers under every name.
        entry = found.get(name) or (next(iter(found.values()), None) if self._entry.server == "llama.cpp" else None)
        if entry is None:
            known = ", ".join(found)[:200] or "none"
            return "failed", f"the server at {self._entry.url} has no model {name!r} (remote_model); it has: {known}"
        # vLLM and SGLang say it in one way, llama.cpp in another.
        length = entry.get("max_model_len") or (entry.get("meta") or {}).get("n_ctx")
        if self._entry.max_context is None and isinstance(length, int) and length > 0:
            self._handler.max_context = length
        return "ready", ""

    def _report(self, runtime: WorkerRuntime, phase: str, message: str) -> None:
        if phase != self._phase:
            self._losses += self._phase == "ready" and not self._connection.pause_seconds
            logger.log(
                logging.INFO if phase == "ready" else logging.WARNING,
                "model %s: %s",
                self._entry.name,
                message or f"the server at {self._entry.url} is ready",
            )
        self._phase = phase
        self._failure = (
            ModelUnavailable(
                f"Model {self._entry.name} cannot be used: {message.rstrip('.')}. Submit the job again when that is corrected."
            )
            if phase == "failed"
            else None
        )
        runtime.update_status(phase=phase, message=message, fraction=1.0 if phase == "ready" else 0.0)
