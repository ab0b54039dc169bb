"""Liveness files, and the health check that reads them."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from cli.entry import quick_healthcheck
from cli.local.healthcheck import Unhealthy, check_workers
from shared.liveness import (
    ABANDONED_SECONDS,
    FROZEN_SECONDS,
    SILENT_SECONDS,
    LivenessFile,
    is_unresponsive,
    last_touch,
    liveness_folder,
    silent_seconds,
    touch_until,
)
from shared.systemd import notify, without_notify_socket
from testing.waiting import wait_until


def test_a_process_touches_its_file_until_it_stops(tmp_path: Path) -> None:
    stopping, file = threading.Event(), tmp_path / "run" / "io@host"
    file.parent.mkdir()
    abandoned, frozen = file.with_name("io@pod-1"), file.with_name("io@pod-2")
    for other, age in ((abandoned, ABANDONED_SECONDS + 60), (frozen, ABANDONED_SECONDS / 2)):
        other.touch()
        os.utime(other, (time.time() - age, time.time() - age))
    touches: list[None] = []
    thread = threading.Thread(target=touch_until, args=[stopping, file, lambda: touches.append(None)])
    thread.start()
    wait_until(lambda: last_touch(file, os.getpid()) and not abandoned.exists(), "the file is touched")
    assert last_touch(file, os.getpid() + 1) is None, "it belongs to another process"
    silence = silent_seconds(file)
    assert silence is not None
    assert silence < FROZEN_SECONDS
    assert frozen.exists()
    assert touches
    stopping.set()
    thread.join()
    assert not file.exists()
    assert silent_seconds(file) is None


def test_a_process_that_no_longer_touches_its_file_is_unresponsive(tmp_path: Path) -> None:
    file, own = tmp_path / "api@host", os.getpid()
    assert not is_unresponsive(file, own), "it may not have started to touch it"
    LivenessFile(file).touch()
    assert not is_unresponsive(file, own)
    old = time.time() - SILENT_SECONDS - 1
    os.utime(file, (old, old))
    assert is_unresponsive(file, own)
    assert not is_unresponsive(file, os.getppid()), "it belongs to another process"


def test_a_healthcheck_names_the_workers_of_this_host(tmp_path: Path) -> None:
    folder, host = liveness_folder(tmp_path), socket.gethostname()
    folder.mkdir()
    with pytest.raises(Unhealthy, match=f"No worker runs on host {host} with the data folder"):
        check_workers(tmp_path)
    (folder / f"api@{host}").touch()
    with pytest.raises(Unhealthy, match="No worker runs on host"):
        check_workers(tmp_path)
    assert check_workers(tmp_path, "api") == [f"api@{host}"]
    for name in (f"cpu@{host}", f"gpu0@{host}", "io@elsewhere"):
        (folder / name).touch()
    assert check_workers(tmp_path) == [f"cpu@{host}", f"gpu0@{host}"]
    assert check_workers(tmp_path, "cpu") == [f"cpu@{host}"]
    with pytest.raises(Unhealthy, match="No worker io runs on host"):
        check_workers(tmp_path, "io")
    old = time.time() - FROZEN_SECONDS - 5
    os.utime(folder / f"gpu0@{host}", (old, old))
    assert check_workers(tmp_path) == [f"cpu@{host}"]
    with pytest.raises(Unhealthy, match=f"No worker gpu0 is alive on host {host}. Last signs of life: gpu0@{host} 3[56] s ago"):
        check_workers(tmp_path, "gpu0")


def test_the_quick_check_takes_what_the_command_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"io@{socket.gethostname()}").touch()
    given = ["--data", str(tmp_path)]
    for arguments in ([], ["io"]):
        assert quick_healthcheck(["healthcheck", *arguments, *given]) == 0
        assert quick_healthcheck(["healthcheck", *given, *arguments]) == 0
    assert quick_healthcheck(["healthcheck", f"--data={tmp_path}"]) == 0
    assert quick_healthcheck(["healthcheck", "gpu0", *given]) == 1
    assert "No worker gpu0 runs on host" in capsys.readouterr().err
    monkeypatch.setenv("ENGINEHOUSE_DATA", str(tmp_path))
    assert quick_healthcheck(["healthcheck"]) == 0
    for other in (["jobs"], [], ["healthcheck", "--help"], ["healthcheck", "a", "b"], ["healthcheck", "--data"]):
        assert quick_healthcheck(other) is None, "the whole command answers"
    monkeypatch.setenv("ENGINEHOUSE_NO_SUCH", "1")
    assert quick_healthcheck(["healthcheck"]) is None, "the whole command reports the mistake"


@pytest.mark.parametrize("prefix", ["", "@"], ids=["a path", "an abstract name"])
def test_systemd_is_notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    address = f"@{tmp_path.name}-notify" if prefix else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if prefix else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
        assert receiver.recv(100) == b"READY=1"
    assert without_notify_socket({"NOTIFY_SOCKET": address, "HOME": "/"}) == {"HOME": "/"}


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/socket")
    notify("READY=1")
