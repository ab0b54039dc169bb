"""The health of a worker's GPUs: looked at each time that the worker tells of itself, logged when it turns bad.

It knows neither models nor Redis.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from workers.gpu.hardware.devices import GIB, Gpu, GpuReader, format_gib

log = logging.getLogger(__name__)

SLACK = GIB // 2


class GpuMonitor:
    """Of the GPUs with these numbers; nothing is told where there are none."""

    def __init__(self, gpus: GpuReader, indexes: Sequence[int]) -> None:
        self._gpus = gpus
        self._indexes = tuple(indexes)
        self._alarms: dict[int, str] = {}
        self._silent = False

    def look(self) -> list[dict[str, Any]]:
        """What each GPU tells now, for people and for metrics. A change for the worse is logged once."""
        faults = self._gpus.faults() if self._indexes else {}
        told = []
        for gpu in self._read():
            if gpu.alarm != self._alarms.get(gpu.index, ""):
                self._alarms[gpu.index] = gpu.alarm
                level = {"critical": logging.ERROR, "warning": logging.WARNING}.get(gpu.alarm, logging.INFO)
                used = f"{format_gib(gpu.memory_used)} of {format_gib(gpu.memory_total)}"
                log.log(level, "memory of GPU %d: %s (%s used)", gpu.index, gpu.alarm or "enough again", used)
            told.append(
                {
                    "index": gpu.index,
                    "uuid": gpu.uuid,
                    "name": gpu.name,
                    "memory_total": gpu.memory_total,
                    "memory_used": gpu.memory_used,
                    "memory_alarm": gpu.alarm or None,
                    "utilisation": gpu.utilisation,
                    "temperature": gpu.temperature,
                    "power": gpu.power,
                    "ecc_errors": gpu.ecc_errors,
                    "xid_errors": list(faults.get(gpu.index, ()))[-10:],
                }
            )
        return told

    def device(self, wanted: str) -> str | None:
        """The value of CUDA_VISIBLE_DEVICES for an engine: what is wanted, else these very GPUs; None leaves it alone."""
        return wanted or ",".join(map(str, self._indexes)) or None

    def used(self) -> int:
        """Bytes of memory in use on all of them together."""
        return sum(gpu.memory_used for gpu in self._read())

    def wait_for_free_memory(self, bytes_each: int, seconds: float, tell: Callable[[str], None]) -> bool:
        """Wait until each GPU has so much memory free; whether it has in time. ``tell`` is given a sentence while it waits."""
        deadline = time.monotonic() + seconds
        while True:
            lacking = [gpu for gpu in self._read() if gpu.memory_free < min(bytes_each, gpu.memory_total - SLACK)]
            if not lacking:
                return True
            sentence = f"GPU {lacking[0].index} has {format_gib(lacking[0].memory_free)} free of the {format_gib(bytes_each)} that it needs"
            tell(f"waiting for memory: {sentence}")
            if time.monotonic() > deadline:
                log.warning("%s; it is loaded all the same", sentence)
                return False
            time.sleep(0.5)

    def wait_for_memory_release(self, used_before: int, seconds: float) -> bool:
        """After an engine has ended: wait until no more memory is used than before it was loaded; whether that came in time.
        False where memory is not told."""
        if not self._indexes:
            return False
        deadline = time.monotonic() + seconds
        while (kept := self.used() - used_before) > SLACK:
            if time.monotonic() > deadline:
                log.warning("%s of GPU memory have not come back within %.0f s", format_gib(kept), seconds)
                return False
            time.sleep(0.2)
        return True

    def _read(self) -> Sequence[Gpu]:
        if not self._indexes:
            return ()
        try:
            found = {gpu.index: gpu for gpu in self._gpus.read()}
        except OSError as error:
            if not self._silent:
                log.error("%s: a GPU that has fallen off its bus needs a restart of the machine", error)
            self._silent = True
            return ()
        self._silent = False
        return [found[index] for index in self._indexes if index in found]
