"""What a process imports when it starts, and how it ends: both decide how much CPU and memory an idle stack takes."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from testing.repository import REPOSITORY

HEAVY = {
    "celery.bin.celery",
    "chromadb.api",
    "grpc",
    "langchain_core",
    "numpy",
    "tokenizers",
    "torch",
    "transformers",
}
PRINT_MODULES = "import sys; print(*sys.modules)"


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ENGINEHOUSE_DATA": str(folder), "ENGINEHOUSE_CHROMA_URL": "http://:password@127.0.0.1:1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False
    )


@pytest.mark.parametrize(
    "start",
    [
        "import workers.cpu.app",
        "import workers.io.app",
        "import workers.gpu.app",
        "import api.wsgi",
        "import cli.local.stack",
        "from workers.index import chroma_server; chroma_server.rust_library()",
    ],
)
def test_a_process_starts_without_libraries_that_only_some_jobs_need(start: str, tmp_path: Path) -> None:
    done = run(f"{start}\n{PRINT_MODULES}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


def test_a_quick_exit_waits_for_threads_runs_exit_functions_and_flushes(tmp_path: Path) -> None:
    code = """
import atexit, threading
from shared.process_exit import exit_now
atexit.register(print, "exit function")
go_on = threading.Event()
threading.Thread(target=lambda: (go_on.wait(), print("thread"))).start()
threading.Thread(target=threading.Event().wait, daemon=True).start()
go_on.set()
exit_now(3)
"""
    done = run(code, tmp_path)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (3, ["thread", "exit function"], "")


def test_a_worker_that_cannot_read_its_settings_names_them_and_exits(tmp_path: Path) -> None:
    environment = {**os.environ, "ENGINEHOUSE_DATA": str(tmp_path), "ENGINEHOUSE_CPU_WORKERS": "many"}
    done = subprocess.run(
        [sys.executable, "-m", "workers.cpu"], capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ENGINEHOUSE_CPU_WORKERS")


def test_an_interrupt_ends_a_worker_that_waits_for_redis_without_a_traceback(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "ENGINEHOUSE_DATA": str(tmp_path),
        "REDIS_URL": "redis://127.0.0.1:1",
        "ENGINEHOUSE_ENGINE": "echo",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers.gpu"],
        stderr=subprocess.PIPE,
        env=environment,
        cwd=REPOSITORY,
        # A shell has commands that it runs in the background ignore it, and their children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert worker.stderr is not None
    with worker.stderr:
        assert b"Redis cannot be reached" in worker.stderr.readline()
        worker.send_signal(signal.SIGINT)
        assert worker.wait(60) == -signal.SIGINT
        assert b"Traceback" not in worker.stderr.read()


def test_a_garbage_collection_in_a_process_of_the_api_copies_little_of_what_it_shares_with_the_others(tmp_path: Path) -> None:
    code = """
import gc, logging, os
from types import SimpleNamespace
from api import gunicorn_conf

def private_kilobytes():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))

gunicorn_conf.on_starting(SimpleNamespace(log=SimpleNamespace(error_log=logging.getLogger())))
if not os.fork():
    before = private_kilobytes()
    gc.collect()
    print(private_kilobytes() - before, flush=True)
    os._exit(0)
os.wait()
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4000
