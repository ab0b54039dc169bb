"""The engine process: ``python -m workers.gpu.engine``, started by a worker and never by hand.

Three threads share one connection: this one loads the model and sends its steps, one takes requests, one beats.
It ends with its worker, whatever any of them is doing then.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from shared import logs
from shared.errors import EnginehouseError, SettingsError
from shared.models.catalogue import ECHO, TRANSFORMERS, ModelEntry, load_catalogue
from shared.prctl import die_with_parent
from workers.gpu.engine.memory import is_out_of_memory
from workers.gpu.engine.messages import CancelRequest, GenerationRequest, Heartbeat, Message, Phase, State, decode, encode
from workers.gpu.engine.protocol import Engine, EngineDied, Report
from workers.gpu.engine.tensor_parallel import TensorParallelGroup, join

log = logging.getLogger("engine")

BEAT_SECONDS = 1.0
FAILED_TO_LOAD = 3
DIED = 4


def main() -> None:
    options = _options()
    # The terminal sends Ctrl-C to every process at once; the worker alone decides when its engine stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    logs.configure(options.log_level)
    _keep_compiled(options.compiled)
    if options.rank:
        _follow(options)
    connection = Connection(options.connection)
    sending = threading.Lock()
    loaded = threading.Event()
    engine: Engine | None = None

    def send(message: Message) -> None:
        with sending:
            try:
                connection.send_bytes(encode(message))
            except OSError:
                os._exit(0)  # nobody is left to tell

    def report(phase: Phase, message: str, fraction: float) -> None:
        send(State(phase, message, fraction))

    def end(status: int, error: Exception) -> NoReturn:
        """The model's threads may be in no state to be joined, or have no memory left to tell: they are not asked."""
        try:
            send(State("failed", _sentence(error), out_of_memory=is_out_of_memory(error)))
        finally:
            os._exit(status)

    def to_the_end(work: Callable[[], None]) -> None:
        """The top of a thread without which the others are of no use."""
        try:
            work()
        except Exception as error:
            log.exception("model %s: a thread of its engine met a fault", options.model)
            end(DIED, error)

    def receive() -> None:
        while True:
            try:
                data = connection.recv_bytes()
            except (EOFError, OSError):
                os._exit(0)
            message = decode(data)
            loaded.wait()
            assert engine is not None
            if isinstance(message, GenerationRequest):
                engine.submit(message)
            elif isinstance(message, CancelRequest):
                engine.cancel(message.id)

    def beat() -> None:
        while True:
            send(engine.stats() if engine is not None and loaded.is_set() else Heartbeat(0, 0, 0, 0, 0.0))
            time.sleep(BEAT_SECONDS)

    for work in (receive, beat):
        threading.Thread(target=to_the_end, args=[work], name=work.__name__, daemon=True).start()

    def lost(sentence: str) -> None:
        log.error("model %s: %s", options.model, sentence)
        end(DIED, EngineDied(sentence))

    try:
        entry = load_catalogue(options.models_file, engine=options.engine).get(options.model)
        followers = TensorParallelGroup(options.ranks, sys.argv[1:], lost) if options.ranks > 1 and entry.engine != ECHO else None
        engine = _make_engine(entry, options, report, followers)
        engine.load(report)
    except Exception as error:
        log.error("model %s could not be loaded", options.model, exc_info=not isinstance(error, EnginehouseError))
        end(FAILED_TO_LOAD, error)
    loaded.set()
    send(State("ready", "", 1.0, attention=engine.attention))

    def generate() -> None:
        assert engine is not None
        try:
            while True:
                step = engine.next_step(timeout=1.0)
                if step is not None:
                    send(step)
        except EngineDied as error:
            log.error("model %s: %s", options.model, error)
            end(DIED, error)

    to_the_end(generate)


def _follow(options: argparse.Namespace) -> NoReturn:
    """Make the steps of rank 0 on another device until that ends."""
    if os.getppid() != options.leader:
        os._exit(0)  # it went before this process could be tied to it
    join(options.rank, options.ranks, options.port)
    try:
        entry = load_catalogue(options.models_file, engine=options.engine).get(options.model)
        engine = _make_engine(entry, options, lambda phase, message, fraction: None)
        engine.load(lambda phase, message, fraction: None)
        while True:
            engine.next_step(timeout=60.0)
    except Exception:
        # Rank 0 sees the end of this process, and ends with it.
        log.exception("model %s, rank %d", options.model, options.rank)
    os._exit(DIED)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="workers.gpu.engine", description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model in the models file")
    parser.add_argument("--models-file", required=True, type=Path)
    parser.add_argument("--prepared", required=True, type=Path, help="folder of prepared models")
    parser.add_argument("--compiled", required=True, type=Path, help="folder of compiled code, kept for the next start")
    parser.add_argument("--engine", default="", choices=("", ECHO, TRANSFORMERS), help="instead of the engine of the entry")
    parser.add_argument("--connection", required=True, type=int, help="inherited file descriptor of a stream socket")
    parser.add_argument("--in-flight", type=int, default=0, help="requests at once; by default those of the entry")
    parser.add_argument("--ranks", type=int, default=1, help="devices that the model is spread over, a process on each")
    parser.add_argument("--rank", type=int, default=0, help="which of them this process is; rank 0 starts the others")
    parser.add_argument("--port", type=int, default=0, help="where rank 0 listens for the others")
    parser.add_argument("--leader", type=int, default=0, help="process id of rank 0")
    parser.add_argument("--token-seconds", type=float, default=0.0, help="how long the echo engine takes for a token")
    parser.add_argument("--log-level", default="INFO")
    return parser.parse_args()


def _keep_compiled(folder: Path) -> None:
    """Before torch is imported, which reads these when it first compiles."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def _make_engine(
    entry: ModelEntry, options: argparse.Namespace, report: Report, followers: TensorParallelGroup | None = None
) -> Engine:
    if entry.engine == ECHO:
        from workers.gpu.engine.echo import EchoEngine

        return EchoEngine.of(entry, options.token_seconds)
    # Imported here: torch takes seconds to import, and an engine that echoes does not need it.
    from workers.gpu.engine.transformers_engine import TransformersEngine
    from workers.gpu.weights import prepare

    folder = prepare(entry, options.prepared, lambda message, fraction: report("loading", message, fraction))
    return TransformersEngine(entry, folder, options.in_flight, ranks=options.ranks, followers=followers)


def _sentence(error: Exception) -> str:
    if isinstance(error, EnginehouseError | SettingsError | EngineDied):
        return str(error)
    return f"{error.__class__.__name__}: {error}"


if __name__ == "__main__":
    main()
