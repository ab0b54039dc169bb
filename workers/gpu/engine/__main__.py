"""Engine process: ``python -m workers.gpu.engine``, started by a GPU worker and never by hand.

Three threads share one connection: this one loads the model and sends its steps, one receives requests, one sends heartbeats.
The process ends with its worker, whatever any of them is doing then.
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
from typing import TYPE_CHECKING, NoReturn

from shared import logs
from shared.errors import EnginehouseError, SettingsError
from shared.models.catalogue import ECHO, TRANSFORMERS, VLLM, ModelEntry, load_catalogue
from shared.prctl import die_with_parent
from shared.process_exit import exit_now
from workers.gpu.engine.memory import is_out_of_memory
from workers.gpu.engine.messages import (
    CancelRequest,
    GenerationRequest,
    Heartbeat,
    Message,
    Phase,
    PhaseUpdate,
    decode_message,
    encode_message,
    split_messages,
)
from workers.gpu.engine.protocol import Engine, EngineDied, PhaseCallback

if TYPE_CHECKING:  # the environment of another engine may not have what it imports
    from workers.gpu.engine.tensor_parallel import TensorParallelGroup

logger = logging.getLogger("engine")

HEARTBEAT_SECONDS = 1.0
FAILED_TO_LOAD = 3
DIED = 4


def main() -> None:
    options = _options()
    # The terminal sends Ctrl-C to every process at once; only the worker decides when its engine stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getpgrp() == os.getpid():
        # The worker gave it its own process group, because some of its processes die neither with it nor with the worker.
        signal.signal(signal.SIGTERM, lambda *_: _end())
        die_with_parent(signal.SIGTERM)
    else:
        die_with_parent()
    logs.configure(options.log_level, form=options.log_format, levels=options.log_levels)
    _set_compile_cache(options.compiled)
    if options.rank:
        _follow_rank_zero(options)
    connection = Connection(options.connection)
    sending = threading.Lock()
    loaded = threading.Event()
    engine: Engine | None = None

    def send(message: Message) -> None:
        with sending:
            try:
                connection.send_bytes(encode_message(message))
            except OSError:
                _end()  # the worker is gone

    def report(phase: Phase, message: str, fraction: float) -> None:
        send(PhaseUpdate(phase, message, fraction))

    def fail(status: int, error: Exception) -> NoReturn:
        """Report the error and exit without joining the model's threads, which may be stuck or out of memory."""
        try:
            send(PhaseUpdate("failed", _describe(error), out_of_memory=is_out_of_memory(error)))
        finally:
            os._exit(status)

    def run_or_die(work: Callable[[], None]) -> None:
        """Run a thread that the others cannot do without."""
        try:
            work()
        except Exception as error:
            logger.exception("model %s: an engine thread failed", options.model)
            fail(DIED, error)

    def receive_requests() -> None:
        while True:
            try:
                data = connection.recv_bytes()
            except (EOFError, OSError):
                _end()
            messages = [decode_message(part) for part in split_messages(data)]
            loaded.wait()
            assert engine is not None
            for message in messages:
                if isinstance(message, GenerationRequest):
                    engine.add_request(message)
                elif isinstance(message, CancelRequest):
                    engine.abort_request(message.id)

    def send_heartbeats() -> None:
        while True:
            send(engine.report_load() if engine is not None and loaded.is_set() else Heartbeat(0, 0, 0, 0, 0.0))
            time.sleep(HEARTBEAT_SECONDS)

    for work in (receive_requests, send_heartbeats):
        threading.Thread(target=run_or_die, args=[work], name=work.__name__, daemon=True).start()

    def rank_exited(sentence: str) -> None:
        logger.error("model %s: %s", options.model, sentence)
        fail(DIED, EngineDied(sentence))

    try:
        entry = load_catalogue(options.models_file, engine=options.engine).get_model(options.model)
        group = None
        if options.ranks > 1 and entry.engine == TRANSFORMERS:
            from workers.gpu.engine.tensor_parallel import TensorParallelGroup

            group = TensorParallelGroup(options.ranks, sys.argv[1:], rank_exited)
        if entry.engine == VLLM:
            engine_process = os.getpid()
            os.register_at_fork(after_in_child=lambda: _leave_worker(engine_process, options.connection))
        engine = _make_engine(entry, options, report, group)
        engine.load(report)
    except Exception as error:
        logger.error("model %s could not be loaded", options.model, exc_info=not isinstance(error, EnginehouseError))
        fail(FAILED_TO_LOAD, error)
    loaded.set()
    send(PhaseUpdate("ready", "", 1.0, attention_backend=engine.attention_backend, max_context=engine.max_context))

    def generate() -> None:
        assert engine is not None
        try:
            while True:
                step = engine.next_step(timeout=1.0)
                if step is not None:
                    send(step)
        except EngineDied as error:
            logger.error("model %s: %s", options.model, error)
            fail(DIED, error)

    run_or_die(generate)


def _follow_rank_zero(options: argparse.Namespace) -> NoReturn:
    """Run the steps of rank 0 on another device until rank 0 exits."""
    from workers.gpu.engine.tensor_parallel import set_rank_environment

    if os.getppid() != options.rank_zero_pid:
        os._exit(0)  # rank 0 exited before this process was tied to it
    set_rank_environment(options.rank, options.ranks, options.port)
    try:
        entry = load_catalogue(options.models_file, engine=options.engine).get_model(options.model)
        engine = _make_engine(entry, options, lambda phase, message, fraction: None)
        engine.load(lambda phase, message, fraction: None)
        while True:
            engine.next_step(timeout=60.0)
    except Exception:
        # Rank 0 notices that this process exits, and exits too.
        logger.exception("model %s, rank %d", options.model, options.rank)
    os._exit(DIED)


def _end() -> NoReturn:
    """End this process, with all of its group if it leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _leave_worker(engine_process: int, connection: int) -> None:
    """In a process that vLLM has forked: end with the one that forked it, and let the worker notice when its engine ends."""
    die_with_parent()
    # In processes that this one forks, the number may belong to another file.
    if os.getppid() == engine_process:
        os.close(connection)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="workers.gpu.engine", description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model in the models file")
    parser.add_argument("--models-file", required=True, type=Path)
    parser.add_argument("--prepared", required=True, type=Path, help="folder of prepared models")
    parser.add_argument("--compiled", required=True, type=Path, help="folder of compiled kernels, kept for the next start")
    parser.add_argument("--folder", type=Path, help="folder of the model, for engines whose environment cannot prepare it")
    parser.add_argument(
        "--adapter", nargs=2, action="append", default=[], metavar=("NAME", "FOLDER"), help="a LoRA adapter, for the same engines"
    )
    parser.add_argument("--engine", default="", choices=("", ECHO, TRANSFORMERS), help="overrides the engine of the entry")
    parser.add_argument("--connection", required=True, type=int, help="inherited file descriptor of a stream socket")
    parser.add_argument("--in-flight", type=int, default=0, help="requests at once (default: max_in_flight of the entry)")
    parser.add_argument("--ranks", type=int, default=1, help="processes that the model is spread over, one per device")
    parser.add_argument("--rank", type=int, default=0, help="rank of this process; rank 0 starts the others")
    parser.add_argument("--port", type=int, default=0, help="port on which rank 0 listens for the others")
    parser.add_argument("--rank-zero-pid", type=int, default=0, help="process id of rank 0")
    parser.add_argument("--token-seconds", type=float, default=0.0, help="duration of a step of the echo engine")
    parser.add_argument("--log-level", default="INFO")
    parser.add_argument("--log-format", default="text")
    parser.add_argument("--log-levels", default="")
    return parser.parse_args()


def _set_compile_cache(folder: Path) -> None:
    """Keep compiled kernels in this folder. Call before torch or vLLM is imported."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    os.environ.setdefault("VLLM_CACHE_ROOT", str(folder / "vllm"))


def _make_engine(
    entry: ModelEntry, options: argparse.Namespace, report: PhaseCallback, group: "TensorParallelGroup | None" = None
) -> Engine:
    if entry.engine == ECHO:
        from workers.gpu.engine.echo import EchoEngine

        return EchoEngine.from_entry(entry, options.token_seconds)
    if entry.engine == VLLM:
        from workers.gpu.engine.vllm_engine import VllmEngine

        return VllmEngine(entry, options.folder, options.in_flight, {name: Path(folder) for name, folder in options.adapter})
    # Imported here: torch takes seconds to import, and the echo engine does not need it.
    from workers.gpu.engine.transformers_engine import TransformersEngine
    from workers.gpu.weights import prepare_model

    folder = prepare_model(entry, options.prepared, lambda message, fraction: report("loading", message, fraction))
    return TransformersEngine(entry, folder, options.in_flight, ranks=options.ranks, group=group)


def _describe(error: Exception) -> str:
    if isinstance(error, EnginehouseError | SettingsError | EngineDied):
        return str(error)
    return f"{error.__class__.__name__}: {error}"


if __name__ == "__main__":
    main()
    exit_now()
