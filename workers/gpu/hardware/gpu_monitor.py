"""GPU monitor: samples the health of a worker's GPUs, logs changes for the worse, and waits for free memory."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from workers.gpu.hardware.devices import GIB, Gpu, GpuReader, format_gib

logger = logging.getLogger(__name__)

SLACK = GIB // 2
POLL_SECONDS = 0.5


class GpuMonitor:
    """Monitors the GPUs with these indexes; reports nothing when there are none."""

    def __init__(
        self,
        reader: GpuReader,
        indexes: Sequence[int],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reader = reader
        self._indexes = tuple(indexes)
        self._clock = clock
        self._sleep = sleep
        self._alarms: dict[int, str] = {}
        self._left_by_engine: dict[int, int] = {}
        self._is_loading = False
        self._is_unreadable = False

    def engine_is_loading(self) -> None:
        """Raise no alarm while an engine takes its share of the memory."""
        self._is_loading = True

    def engine_has_loaded(self) -> None:
        """The engine takes no more memory: what is used beyond it raises alarms."""
        if self._is_loading:
            self._left_by_engine = {gpu.index: gpu.memory_free for gpu in self._read_gpus()}
            self._is_loading = False

    def sample(self) -> list[dict[str, Any]]:
        """The current state of each GPU, for people and metrics. Each change of an alarm is logged once."""
        xid_errors = self._reader.xid_errors() if self._indexes else {}
        samples = []
        for gpu in self._read_gpus():
            alarm = "" if self._is_loading else gpu.alarm(self._left_by_engine.get(gpu.index))
            if alarm != self._alarms.get(gpu.index, ""):
                self._alarms[gpu.index] = alarm
                level = {"critical": logging.ERROR, "warning": logging.WARNING}.get(alarm, logging.INFO)
                used = f"{format_gib(gpu.memory_used)} of {format_gib(gpu.memory_total)}"
                logger.log(level, "memory of GPU %d: %s (%s used)", gpu.index, alarm or "back to normal", used)
            samples.append(
                {
                    "index": gpu.index,
                    "uuid": gpu.uuid,
                    "name": gpu.name,
                    "memory_total": gpu.memory_total,
                    "memory_used": gpu.memory_used,
                    "memory_alarm": alarm or None,
                    "utilisation": gpu.utilisation,
                    "temperature": gpu.temperature,
                    "power": gpu.power,
                    "ecc_errors": gpu.ecc_errors,
                    "xid_errors": list(xid_errors.get(gpu.index, ()))[-10:],
                }
            )
        return samples

    def visible_devices(self, override: str) -> str | None:
        """The CUDA_VISIBLE_DEVICES of an engine: ``override``, else these GPUs; None leaves it unset."""
        return override or ",".join(map(str, self._indexes)) or None

    def memory_used(self) -> int:
        """Bytes of memory in use on all of them together."""
        return sum(gpu.memory_used for gpu in self._read_gpus())

    def wait_for_free_memory(self, bytes_per_gpu: int, seconds: float, report: Callable[[str], None]) -> bool:
        """Wait until each GPU has this much memory free; returns whether it does. ``report`` receives a sentence while it waits."""
        deadline = self._clock() + seconds
        while True:
            lacking = [gpu for gpu in self._read_gpus() if gpu.memory_free < min(bytes_per_gpu, gpu.memory_total - SLACK)]
            if not lacking:
                return True
            free = format_gib(lacking[0].memory_free)
            sentence = f"GPU {lacking[0].index} has {free} free of the {format_gib(bytes_per_gpu)} that the model needs"
            report(f"waiting for memory: {sentence}")
            if self._clock() > deadline:
                logger.warning("%s; loading it anyway", sentence)
                return False
            self._sleep(POLL_SECONDS)

    def wait_for_memory_release(self, used_before: int, seconds: float) -> bool:
        """After an engine has ended, wait until no more memory is used than before it was loaded; returns whether that is so.

        False where memory is not reported.
        """
        if not self._indexes:
            return False
        deadline = self._clock() + seconds
        while (kept := self.memory_used() - used_before) > SLACK:
            if self._clock() > deadline:
                logger.warning("%s of GPU memory were not released within %.0f s", format_gib(kept), seconds)
                return False
            self._sleep(POLL_SECONDS / 2)
        return True

    def _read_gpus(self) -> Sequence[Gpu]:
        if not self._indexes:
            return ()
        try:
            gpus = {gpu.index: gpu for gpu in self._reader.read_gpus()}
        except OSError as error:
            if not self._is_unreadable:
                logger.error("%s. If the GPU has fallen off the bus, restart the machine.", error)
            self._is_unreadable = True
            return ()
        self._is_unreadable = False
        return [gpus[index] for index in self._indexes if index in gpus]
