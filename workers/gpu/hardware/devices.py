"""GPUs of this machine and their current state, read from NVML.

A small protocol with two implementations, so that code that decides about GPUs can be given any machine.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger(__name__)

GIB = 1024**3
# An alarm is raised when less than this is free: of the memory, and of what was free when the engine had taken its share.
WARNING_OF_TOTAL, CRITICAL_OF_TOTAL = 0.2, 0.1
WARNING_OF_LEFT, CRITICAL_OF_LEFT = 0.5, 0.25


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU at one moment. ``index`` follows the PCI bus order. Memory is in bytes; None means not reported."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_free: int
    utilisation: float | None = None
    """The fraction of the last sampling period in which any kernel ran, 0 to 1."""
    temperature: float | None = None
    """In degrees Celsius."""
    power: float | None = None
    """In watts."""
    ecc_errors: int | None = None
    """Uncorrected memory errors since the driver was loaded."""

    @property
    def memory_used(self) -> int:
        return self.memory_total - self.memory_free

    def alarm(self, left_by_engine: int | None) -> str:
        """``critical`` or ``warning`` when its memory is nearly full, else empty.

        An engine fills a GPU on purpose. ``left_by_engine`` are the bytes that were free when it had; None without an engine.
        """
        left = self.memory_total if left_by_engine is None else left_by_engine
        if self.memory_free <= min(CRITICAL_OF_TOTAL * self.memory_total, CRITICAL_OF_LEFT * left):
            return "critical"
        if self.memory_free <= min(WARNING_OF_TOTAL * self.memory_total, WARNING_OF_LEFT * left):
            return "warning"
        return ""


class GpuReader(Protocol):
    """Reads the state of a machine's GPUs."""

    def read_gpus(self) -> Sequence[Gpu]:
        """The usable GPUs, as they are now, by index. Raises OSError when one does not answer."""
        ...

    def xid_errors(self) -> Mapping[int, Sequence[int]]:
        """The Xid errors of each GPU since this reader was created, by GPU index; the newest last."""
        ...


class NoGpuReader:
    """A machine without GPUs: models run on its CPU."""

    def read_gpus(self) -> Sequence[Gpu]:
        return ()

    def xid_errors(self) -> Mapping[int, Sequence[int]]:
        return {}


class NvmlReader:
    """GPUs of this machine, read from NVML: those in ``visible`` (as in CUDA_VISIBLE_DEVICES), or all.

    Raises OSError when NVML is missing or does not answer.
    """

    def __init__(self, visible: str | None = None) -> None:
        import pynvml

        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            uuids = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        except pynvml.NVMLError as error:
            raise OSError(f"NVML does not answer: {error}") from None
        chosen = visible_indexes(visible, uuids)
        self._handles = {index: (handle, uuids[index]) for index, handle in enumerate(handles) if index in chosen}
        self._xid_errors: dict[int, list[int]] = {}
        self._events = self._watch_xid_errors()

    def read_gpus(self) -> Sequence[Gpu]:
        return [self._read_gpu(index, handle, uuid) for index, (handle, uuid) in self._handles.items()]

    def xid_errors(self) -> Mapping[int, Sequence[int]]:
        nvml = self._nvml
        while self._events is not None:
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError:
                break  # no new event
            if event.eventType == nvml.nvmlEventTypeXidCriticalError:
                index = nvml.nvmlDeviceGetIndex(event.device)
                logger.error("GPU %d reported Xid error %d: see NVIDIA's list of Xid errors", index, event.eventData)
                self._xid_errors.setdefault(index, []).append(int(event.eventData))
        return self._xid_errors

    def _watch_xid_errors(self) -> Any:
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
            for handle, _ in self._handles.values():
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
        except nvml.NVMLError as error:
            logger.info("Xid errors cannot be watched on this machine (%s)", error)
            return None
        return events

    def _read_gpu(self, index: int, handle: Any, uuid: str) -> Gpu:
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as error:
            raise OSError(f"GPU {index} does not answer: {error}") from None
        utilisation = self._query("nvmlDeviceGetUtilizationRates", handle)
        power = self._query("nvmlDeviceGetPowerUsage", handle)
        return Gpu(
            index=index,
            uuid=uuid,
            name=_text(self._query("nvmlDeviceGetName", handle) or "GPU"),
            memory_total=int(memory.total),
            memory_free=int(memory.free),
            utilisation=None if utilisation is None else utilisation.gpu / 100,
            temperature=self._query("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            power=None if power is None else power / 1000,
            ecc_errors=self._query(
                "nvmlDeviceGetTotalEccErrors", handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            ),
        )

    def _query(self, function: str, *arguments: Any) -> Any:
        """The result, or None where the GPU, its driver or our permissions do not allow it."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._nvml.NVMLError:
            return None


def detect_gpus() -> GpuReader:
    """A reader of the GPUs that this process may use; of none where there is no NVIDIA driver."""
    try:
        return NvmlReader(os.environ.get("CUDA_VISIBLE_DEVICES"))
    except (OSError, ImportError) as error:
        logger.debug("no GPUs found (%s)", error)
        return NoGpuReader()


def visible_indexes(visible: str | None, uuids: Sequence[str]) -> list[int]:
    """The indexes of the GPUs that a value of CUDA_VISIBLE_DEVICES names; None names all.

    Like CUDA, it ignores everything after the first invalid entry.
    """
    if visible is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for word in (word.strip() for word in visible.split(",")):
        if word.isdigit() and int(word) < len(uuids):
            chosen.append(int(word))
        elif word.startswith("GPU-") and any(uuid.startswith(word) for uuid in uuids):
            chosen.append(next(index for index, uuid in enumerate(uuids) if uuid.startswith(word)))
        else:
            break
    return chosen


def format_gib(count: int) -> str:
    """Format a number of bytes in GiB."""
    return f"{count / GIB:.1f} GiB"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
