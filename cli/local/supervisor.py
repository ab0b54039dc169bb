"""Supervisor: start services, forward their output, restart those that exit, and stop all of them in order.

It runs in one thread, with a selector on the output of the services and on signals, so there are no races.
"""

import os
import re
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from subprocess import Popen
from types import FrameType

from cli.errors import CommandError
from cli.local.console_log import ConsoleLog
from cli.local.process_tree import children, descendants, signal_group, spawn
from shared.liveness import FROZEN_SECONDS, last_touch
from shared.machine import is_stopped
from shared.prctl import adopt_orphans
from shared.systemd import notify, without_notify_socket

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
STEADY_SECONDS = 60.0
LONGEST_LINE = 64 * 1024
LIVENESS_CHECK_SECONDS = 1.0
# The kernel does not report that a process was adopted. Orphans of a service that ends are killed at once, these only if their parent
# was a child of a service that goes on.
ORPHAN_CHECK_SECONDS = 1.0


@dataclass(frozen=True)
class Service:
    """A process to keep running, in ``directory`` if given. ``grace`` is the number of seconds between SIGTERM and SIGKILL; lines
    that match ``noise`` are not forwarded, but appended to ``noise_log`` if given. ``liveness`` is a file that the process touches:
    when it stops doing so, or is stopped before it has begun, it is restarted."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(repr=False)
    grace: float = 10.0
    noise: re.Pattern[str] | None = None
    noise_log: Path | None = None
    directory: Path | None = None
    liveness: Path | None = None


class ShutdownRequest(IntEnum):
    """The requested kind of shutdown. It never decreases."""

    NONE = 0
    DRAIN = 1
    KILL = 2


@dataclass
class _RunningService:
    service: Service
    process: Popen[bytes]
    since: float
    delay: float
    unfinished: bytes = b""
    touched: int | None = None
    silence: float = 0.0


class Supervisor:
    """Call ``start_service`` for each service, ``process_events`` in a loop, then ``stop_services``; all from the main thread."""

    def __init__(
        self,
        log: ConsoleLog,
        *,
        guardian_signal: int = signal.SIGUSR1,
        on_change: Callable[[], None] = lambda: None,
        frozen_seconds: float = FROZEN_SECONDS,
    ) -> None:
        """``guardian_signal`` means that the guardian has died; ``on_change`` is called when a process starts or ends.
        ``frozen_seconds`` is how long a process may leave its liveness file untouched."""
        self._frozen_seconds = frozen_seconds
        adopt_orphans()
        self.shutdown_request = ShutdownRequest.NONE
        self._log = log
        self._on_change = on_change
        self._running: dict[str, _RunningService] = {}
        self._due: dict[str, tuple[float, float, Service]] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_up, writer = os.pipe()
        for descriptor in (self._wake_up, writer):
            os.set_blocking(descriptor, False)
        self._selector.register(self._wake_up, selectors.EVENT_READ)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # interrupts the selector
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, guardian_signal):
            signal.signal(number, self._on_signal)
        self._guardian_signal = guardian_signal
        self._checked_at = self._orphans_checked_at = time.monotonic()

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each running service."""
        return {name: running.process.pid for name, running in self._running.items()}

    def start_service(self, service: Service) -> None:
        """Start a service and keep it running. Raises CommandError if it cannot be started."""
        self._log.announce(service.name)
        self._launch(service, FIRST_DELAY)

    def process_events(self, seconds: float) -> None:
        """Forward output for up to ``seconds``, collect processes that exited, and restart those that are due."""
        self._forward_output(min([seconds, *(max(0.0, when - time.monotonic()) for when, _, _ in self._due.values())]))
        self._kill_frozen()
        for running in self._collect_exited():
            self._plan_restart(running)
        for name, (when, delay, service) in list(self._due.items()):
            if when <= time.monotonic():
                del self._due[name]
                self._relaunch(service, delay)

    def kill_service(self, name: str) -> None:
        """Kill a service, if it runs; it is restarted like one that crashed."""
        if name in self._running:
            signal_group(self._running[name].process.pid, signal.SIGKILL)

    def stop_services(self, order: Sequence[Sequence[str]]) -> None:
        """Stop the services group by group, each with its grace period, then kill all other descendants."""
        self._due.clear()
        for names in order:
            stopping = [running for name, running in self._running.items() if name in names]
            for running in stopping:
                running.process.terminate()
            started = time.monotonic()
            while any(running.service.name in self._running for running in stopping):
                for running in stopping:
                    overdue = time.monotonic() - started > running.service.grace
                    if running.service.name in self._running and (overdue or self.shutdown_request is ShutdownRequest.KILL):
                        self._log.say(
                            f"{running.service.name} did not stop within {running.service.grace:g} s and is killed"
                            if overdue
                            else f"{running.service.name} is killed"
                        )
                        signal_group(running.process.pid, signal.SIGKILL)
                        running.process.wait()
                self._forward_output(0.1)
                self._collect_exited()
        while descendants(os.getpid()):
            self._kill_orphans()

    def _launch(self, service: Service, delay: float) -> None:
        reader, writer = os.pipe()
        try:
            environment = without_notify_socket(service.environment)
            process = spawn(service.command, environment=environment, output=writer, directory=service.directory)
        except OSError as error:
            os.close(reader)
            raise CommandError(f"{service.name} could not be started: {error}.") from None
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        running = _RunningService(service, process, time.monotonic(), delay)
        self._running[service.name] = running
        self._selector.register(reader, selectors.EVENT_READ, running)
        self._on_change()

    def _relaunch(self, service: Service, delay: float) -> None:
        """Start a service again. A failure, such as a lack of memory or a program that is being replaced, must not stop the others."""
        try:
            self._launch(service, delay)
        except CommandError as error:
            self._log.say(f"{error} Trying again in {delay:g} s.")
            self._restart_later(service, delay, wait=delay)

    def _kill_frozen(self) -> None:
        """Kill processes that have not touched their liveness file for too long."""
        elapsed = time.monotonic() - self._checked_at
        if elapsed < LIVENESS_CHECK_SECONDS:
            return
        self._checked_at += elapsed
        notify("WATCHDOG=1")
        for running in self._running.values():
            file, pid = running.service.liveness, running.process.pid
            if file is None:
                continue
            touched = last_touch(file, pid)
            # A process that has never touched its file may still be starting, but not if it is stopped.
            if touched != running.touched or (touched is None and not is_stopped(pid)):
                running.touched, running.silence = touched, 0.0
                continue
            # If this process was stopped or the machine slept, the others had no chance either.
            running.silence += min(elapsed, 3 * LIVENESS_CHECK_SECONDS)
            if running.silence >= self._frozen_seconds:
                self._log.say(f"{running.service.name} has shown no sign of life for {running.silence:.0f} s and is killed")
                signal_group(pid, signal.SIGKILL)

    def _restart_later(self, service: Service, delay: float, wait: float) -> None:
        """Start a service after ``wait`` seconds. If it ends soon after that, twice the ``delay`` passes between two starts."""
        self._due[service.name] = (time.monotonic() + wait, min(2 * delay, LONGEST_DELAY), service)

    def _forward_output(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fd == self._wake_up:
                with suppress(BlockingIOError):
                    os.read(self._wake_up, 4096)
            else:
                self._read(key.fd, key.data)

    def _read(self, descriptor: int, running: _RunningService) -> None:
        try:
            data = os.read(descriptor, LONGEST_LINE)
        except BlockingIOError:
            return
        lines = (running.unfinished + data).replace(b"\r", b"\n").split(b"\n")
        running.unfinished = lines.pop() if data and len(lines[-1]) < LONGEST_LINE else b""
        for line in lines:
            if text := line.decode(errors="replace").rstrip():
                self._print_or_log(running.service, text)
        if not data:  # all writers have closed the pipe
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def _print_or_log(self, service: Service, text: str) -> None:
        if service.noise is None or not service.noise.search(text):
            self._log.line(service.name, text)
        elif service.noise_log is not None:
            with suppress(OSError), service.noise_log.open("a") as log:  # a full disk must not stop the supervisor
                log.write(f"{text}\n")

    def _collect_exited(self) -> list[_RunningService]:
        dead = [running for running in self._running.values() if running.process.poll() is not None]
        for running in dead:
            signal_group(running.process.pid, signal.SIGKILL)  # with everything it started
            del self._running[running.service.name]
        # Most orphans are children of a process that has just ended.
        if dead or time.monotonic() >= self._orphans_checked_at + ORPHAN_CHECK_SECONDS:
            self._kill_orphans()
            self._orphans_checked_at = time.monotonic()
        if dead:
            self._on_change()
        return dead

    def _kill_orphans(self) -> None:
        """Kill adopted children, whose own parent has died, with their descendants, and reap them."""
        own = {running.process.pid for running in self._running.values()}
        for pid in children(os.getpid()):
            if pid not in own:
                for victim in [*descendants(pid), pid]:
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _plan_restart(self, running: _RunningService) -> None:
        name, code = running.service.name, running.process.returncode
        ran = time.monotonic() - running.since
        delay = FIRST_DELAY if ran >= STEADY_SECONDS else running.delay
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        if self.shutdown_request is ShutdownRequest.NONE:
            # From start to start: what ran for longer than the delay did not fail at its start, and others wait for it.
            wait = max(FIRST_DELAY, round(delay - ran))
            self._log.say(f"{name} {how}; restarting in {wait:g} s")
            self._restart_later(running.service, delay, wait)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self.shutdown_request is ShutdownRequest.DRAIN
        self.shutdown_request = (
            ShutdownRequest.KILL
            if again or number == self._guardian_signal
            else max(self.shutdown_request, ShutdownRequest.DRAIN)
        )
