"""Engine core: the loop that schedules a step, runs it, and processes its output, in a thread of its own.

On a GPU the next step is scheduled and started while one is running, so that the device never waits for Python.
"""

import logging
import threading
from collections import deque

from workers.gpu.engine.model_runner import ModelRunner, StartedStep
from workers.gpu.engine.output_buffer import OutputBuffer
from workers.gpu.engine.protocol import EngineDied
from workers.gpu.engine.scheduler import QueuedRequest, ScheduledStep, Scheduler

logger = logging.getLogger("engine.core")


class EngineCore:
    """Runs the steps of ``scheduler`` on ``runner``, up to ``depth`` (1 or 2) at once. Its output goes to ``buffer``."""

    def __init__(self, scheduler: Scheduler, runner: ModelRunner, buffer: OutputBuffer, depth: int) -> None:
        self._scheduler, self._runner, self._buffer, self._depth = scheduler, runner, buffer, depth
        self.steps = 0
        self._new: list[QueuedRequest] = []
        self._aborted: list[str] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine core", daemon=True)

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop the loop and drop its requests."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)

    def add_request(self, request: QueuedRequest) -> None:
        """Queue a request for the next step."""
        with self._changed:
            self._new.append(request)
            self._changed.notify()

    def abort_request(self, id: str) -> None:
        """End a request before the next step. The loop does not report its end."""
        with self._changed:
            self._aborted.append(id)
            self._changed.notify()

    def check_alive(self) -> None:
        """Raise EngineDied if the loop has ended."""
        if self._error is not None:
            # CUDA errors continue with lines of advice to programmers.
            reason = (str(self._error) or repr(self._error)).splitlines()[0]
            raise EngineDied(f"the generation loop has died: {reason}") from self._error

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:
            logger.exception("the generation loop has died")
            self._error = error
            self._buffer.report_error(str(error))

    def _loop(self) -> None:
        scheduler = self._scheduler
        running: deque[tuple[ScheduledStep, StartedStep]] = deque()
        while self._take_requests(is_idle=not running and not scheduler.has_work):
            step = scheduler.next_step()
            if step is not None:
                running.append((step, self._runner.start_step(step.input)))
                if len(running) == 1:
                    self._adjust(*running[0])
            if running and (step is None or len(running) >= self._depth):
                completed, started = running.popleft()
                scheduler.process_output(completed, started.result())
                self.steps += 1
                if running:
                    self._adjust(*running[0])

    def _adjust(self, step: ScheduledStep, started: StartedStep) -> None:
        """Have a step sample that had to wait for the output of the step before. The device has computed its logits meanwhile."""
        if step.input.is_adjusted:
            started.adjust(self._scheduler.make_adjustments(step, started.mask_rows))

    def _take_requests(self, *, is_idle: bool) -> bool:
        """Hand new requests and aborts to the scheduler, waiting for them when idle. Returns False to stop."""
        with self._changed:
            if is_idle:
                self._changed.wait_for(lambda: self._new or self._aborted or self._stopping)
            new, self._new = self._new, []
            aborted, self._aborted = self._aborted, []
        for request in new:
            self._scheduler.add_request(request)
        for id in aborted:
            self._scheduler.abort_request(id)
        return not self._stopping
