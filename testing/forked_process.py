"""The inside of a fork that stands for ``python -m module``: it becomes the process that its command describes.

Only modules that do the same whenever they are imported are imported before the fork. Those that look at the environment, such as
``prometheus_client`` or ``torch``, are imported by each fork.
"""

import ctypes
import gc
import importlib
import io
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from cli.local import process_tree
from shared.errors import EnginehouseError, SettingsError
from shared.models.catalogue import ECHO, load_catalogue
from testing.process_forks import can_fork
from testing.repository import REPOSITORY

# Each of these reads the environment at its import, or is so large that its pages would have to be copied.
NOT_BEFORE_THE_FORK = (
    *("prometheus_client", "torch", "transformers", "sentence_transformers", "tokenizers", "huggingface_hub", "onnxruntime"),
    *("chromadb", "numpy", "scipy", "flower", "tornado", "langchain_community", "lxml", "cv2", "rapidocr", "pypdf", "pypdfium2"),
)
LIBRARIES = (
    *(
        "celery.apps.worker",
        "celery.concurrency.prefork",
        "celery.concurrency.thread",
        "celery.worker.consumer",
        "kombu.transport.redis",
    ),
    *(
        "celery.bin.worker",
        "celery.events",
        "billiard.pool",
        "gunicorn.app.wsgiapp",
        "gunicorn.arbiter",
        "gunicorn.workers.gthread",
    ),
    *("flask_cors", "enginehouse_client", "httpx2", "rich.live", "rich.progress", "rich.table"),
    # What httpx2 and typer import when they are used.
    *("httpcore2", "h11", "truststore", "anyio.streams.tls", "encodings.idna", "typer._adapters", "pydantic.type_adapter"),
)
FORKED_MODULES = ("cli.local.stack", "gunicorn", "workers.gpu", "workers.cpu", "workers.io", "workers.index.embedding_server")

PR_SET_MM, PR_SET_MM_MAP = 35, 14
_libc = ctypes.CDLL(None, use_errno=True)


def prepare_to_fork() -> None:
    """Import what the processes of the product import, and have those that start others fork them."""
    blocked = {name: None for name in NOT_BEFORE_THE_FORK if name not in sys.modules}
    sys.modules.update(blocked)  # type: ignore[arg-type]
    for name in (*LIBRARIES, *_own_modules()):
        with suppress(ImportError):
            importlib.import_module(name)
    for name in blocked:
        del sys.modules[name]
    for name in ("cli.local.guardian", "cli.local.supervisor"):
        vars(importlib.import_module(name))["spawn"] = _spawn
    vars(importlib.import_module("workers.gpu.engine_client.engine_connection"))["subprocess"] = _EngineProcesses
    # Typer builds all commands again whenever one runs, which takes a tenth of a second. The app is another object in each fork, which runs
    # its module again.
    main = importlib.import_module("typer.main")
    command = main.get_command(importlib.import_module("cli.main").app)
    vars(main)["get_command"] = lambda app: command
    # libuuid keeps the number of a file that it has opened, which is that of another file in a fork. Python then makes these ids itself.
    vars(uuid)["_generate_time_safe"] = None
    gc.collect()
    gc.freeze()


def _own_modules() -> list[str]:
    """The modules of the product, without those that are programs and those that act when they are imported."""
    names = []
    for folder in ("cli", "shared", "api", "workers"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            name = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            if file.stem not in ("__main__", "wsgi", "gunicorn_conf", "flower_app") and not _acts_at_import(name):
                names.append(name)
    return names


def _acts_at_import(name: str) -> bool:
    return name in ("workers.cpu.app", "workers.io.app") or name.startswith(("workers.gpu.engine.", "workers.cpu.sandbox."))


def become(
    command: Sequence[str], environment: Mapping[str, str], files: Sequence[int], *, keep: Collection[int] = ()
) -> NoReturn:
    """Turn this fork into the process of ``command``, with ``files`` as its standard input, output and error.

    It keeps the files whose numbers are in ``keep``.
    """
    module, arguments = command[2], command[3:]
    for target, file in enumerate([os.dup(file) for file in files]):
        os.dup2(file, target)
    _close_files(keep)
    _reset_signals()
    _open_streams(environment)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    describe_process(command, environment)
    # No object of the parent is freed here: its files have been closed, and their numbers are those of other files now.
    gc.freeze()
    sys.argv = [module, *arguments]
    _take_search_path(environment.get("PYTHONPATH", ""))
    # It runs as __main__, and warns if it is there already.
    sys.modules.pop(module, None)
    _run(module)


def _run(module: str) -> NoReturn:
    """Run the module as ``python -m`` does, and end the process."""
    from shared.process_exit import exit_now

    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        exit_now(end.code if isinstance(end.code, int) else int(end.code is not None))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - the top of a process
        sys.excepthook(*sys.exc_info())
        exit_now(1)
    exit_now(0)


def describe_process(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Change what /proc shows of this process. Raises OSError if the kernel cannot do that (prctl(2), PR_SET_MM_MAP)."""
    shown = [b"".join(os.fsencode(text) + b"\0" for text in texts) for texts in (command, map("=".join, environment.items()))]
    # The kernel reads the texts from here as long as the process runs.
    buffer = ctypes.create_string_buffer(b"".join(shown), sum(map(len, shown)))
    _shown.append(buffer)
    start = ctypes.addressof(buffer)
    middle, end = start + len(shown[0]), start + len(buffer)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    # Numbered as in proc(5), where the state is field 3.
    code, stack, data, heap = (fields[number - 3 : number - 1] for number in (26, 28, 45, 47))
    _libc.sbrk.restype = ctypes.c_void_p
    addresses = [*code, *data, heap[0], _libc.sbrk(0), stack[0], start, middle, middle, end]
    layout = _Layout((ctypes.c_uint64 * 11)(*map(int, addresses)), None, 0, 0xFFFFFFFF)
    if _libc.prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.byref(layout), ctypes.sizeof(layout), 0):
        raise OSError(ctypes.get_errno(), "the command line of a process cannot be changed")


_shown: list[Any] = []


class _Layout(ctypes.Structure):
    """``struct prctl_mm_map`` without a change of the auxiliary vector and of the executable."""

    _fields_ = (
        ("addresses", ctypes.c_uint64 * 11),
        ("auxiliary_vector", ctypes.c_void_p),
        ("auxiliary_size", ctypes.c_uint32),
        ("executable", ctypes.c_uint32),
    )


def _close_files(keep: Collection[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with suppress(OSError):  # the folder that was listed
                os.close(int(name))


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _open_streams(environment: Mapping[str, str]) -> None:
    """Standard input, output and error as Python opens them at its start."""
    unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")  # type: ignore[misc]
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        stream = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, "wb", closefd=False)),
            encoding="utf-8",
            errors=errors,
            line_buffering=number == 2 or os.isatty(number),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _take_search_path(search_path: str) -> None:
    """Add the folders of PYTHONPATH that this process does not have, and run what customizes Python there."""
    new = [folder for folder in search_path.split(os.pathsep) if folder and folder not in sys.path]
    sys.path[1:1] = new
    if any(Path(folder, "sitecustomize.py").exists() for folder in new):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")


def _spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    output: int | IO[bytes] | None = None,
    errors: int | None = subprocess.STDOUT,
    death_signal: int = signal.SIGKILL,
    directory: Path | None = None,
) -> Any:
    """``cli.local.process_tree.spawn`` by a fork of this process, if it is Python that runs one of our processes."""
    if not can_fork(command, environment) or command[2] not in FORKED_MODULES:
        return process_tree.spawn(
            command, environment=environment, output=output, errors=errors, death_signal=death_signal, directory=directory
        )
    parent = os.getpid()
    _flush_streams()
    if pid := os.fork():
        return _Child(command, pid)
    os.setsid()
    process_tree.tie_to_parent(parent, death_signal)()
    if directory is not None:
        os.chdir(directory)
    written = 1 if output is None else output if isinstance(output, int) else output.fileno()
    become(command, environment, (os.open(os.devnull, os.O_RDONLY), written, 2 if output is None or errors is None else written))


def _flush_streams() -> None:
    """So that a fork does not write what this process has buffered."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


class _EngineProcesses:
    """What a GPU worker uses of ``subprocess``. Echo engines are forks of their worker; other engines have threads and libraries of their own."""

    DEVNULL = subprocess.DEVNULL
    TimeoutExpired = subprocess.TimeoutExpired

    @staticmethod
    def Popen(
        command: Sequence[str], *, pass_fds: Sequence[int], stdin: int, env: Mapping[str, str], process_group: int | None
    ) -> Any:
        if not can_fork(command, env) or not _is_echo(command):
            return subprocess.Popen(command, pass_fds=pass_fds, stdin=stdin, env=env, process_group=process_group)
        _flush_streams()
        if pid := os.fork():
            return _Child(command, pid)
        become(command, env, (os.open(os.devnull, os.O_RDONLY), 1, 2), keep=pass_fds)


def _is_echo(command: Sequence[str]) -> bool:
    """Whether this command of an engine process serves an echo model."""
    options = dict(zip(command[3::2], command[4::2], strict=False))
    try:
        catalogue = load_catalogue(Path(options["--models-file"]), engine=options["--engine"])
        return catalogue.get_model(options["--model"]).engine == ECHO
    except (SettingsError, EnginehouseError):  # the engine reports it
        return False


class _Child:
    """What the supervisor and the workers use of ``subprocess.Popen``."""

    def __init__(self, command: Sequence[str], pid: int) -> None:
        self.args, self.pid, self.returncode = command, pid, None
        self._ended = os.pidfd_open(pid)
        self._reaping = threading.Lock()

    args: Sequence[str]
    returncode: int | None

    def poll(self) -> int | None:
        with self._reaping:
            return self._reap()

    def wait(self, timeout: float | None = None) -> int:
        while (status := self.poll()) is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reap(self) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # reaped by kill_descendants; its status is lost, as in subprocess
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode
