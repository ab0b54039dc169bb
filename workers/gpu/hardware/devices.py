"""The GPUs of this machine and their state, as NVML tells, or none.

A small protocol with two implementations, so that what decides over GPUs can be given any machine. It knows no models.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

log = logging.getLogger(__name__)

GIB = 1024**3
MEMORY_WARNING, MEMORY_CRITICAL = 0.80, 0.90


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU at one moment. ``index`` counts as the PCI bus does. Memory is in bytes; None is what the GPU does not tell."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_free: int
    utilisation: float | None = None
    """The part of the last moment in which any kernel ran, 0 to 1."""
    temperature: float | None = None
    """In degrees Celsius."""
    power: float | None = None
    """In watts."""
    ecc_errors: int | None = None
    """Errors of the memory that could not be corrected, since the driver was loaded."""

    @property
    def memory_used(self) -> int:
        return self.memory_total - self.memory_free

    @property
    def alarm(self) -> str:
        """``critical`` or ``warning`` when its memory is nearly full, else nothing."""
        used = self.memory_used / self.memory_total
        return "critical" if used >= MEMORY_CRITICAL else "warning" if used >= MEMORY_WARNING else ""


class GpuReader(Protocol):
    """What can be asked of a machine's GPUs."""

    def read(self) -> Sequence[Gpu]:
        """All GPUs that may be used here, as they are now, by index."""
        ...

    def faults(self) -> Mapping[int, Sequence[int]]:
        """The Xid errors that each GPU has met since this was made, by its index; the newest last."""
        ...


class NoGpuReader:
    """A machine without GPUs: models run on its CPU."""

    def read(self) -> Sequence[Gpu]:
        return ()

    def faults(self) -> Mapping[int, Sequence[int]]:
        return {}


class NvmlReader:
    """The GPUs of this machine by NVML, those that ``visible`` names (as CUDA_VISIBLE_DEVICES would) or all.

    Raises OSError when NVML is not there or does not answer.
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
        self._faults: dict[int, list[int]] = {}
        self._events = self._watch()

    def read(self) -> Sequence[Gpu]:
        return [self._gpu(index, handle, uuid) for index, (handle, uuid) in self._handles.items()]

    def faults(self) -> Mapping[int, Sequence[int]]:
        nvml = self._nvml
        while self._events is not None:
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError:
                break  # nothing has happened
            if event.eventType == nvml.nvmlEventTypeXidCriticalError:
                index = nvml.nvmlDeviceGetIndex(event.device)
                log.error("GPU %d met Xid error %d: see NVIDIA's list of Xid errors", index, event.eventData)
                self._faults.setdefault(index, []).append(int(event.eventData))
        return self._faults

    def _watch(self) -> Any:
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
            for handle, _ in self._handles.values():
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
        except nvml.NVMLError as error:
            log.info("Xid errors cannot be watched here (%s)", error)
            return None
        return events

    def _gpu(self, index: int, handle: Any, uuid: str) -> Gpu:
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as error:
            raise OSError(f"GPU {index} does not answer: {error}") from None
        utilisation = self._told("nvmlDeviceGetUtilizationRates", handle)
        power = self._told("nvmlDeviceGetPowerUsage", handle)
        return Gpu(
            index=index,
            uuid=uuid,
            name=_text(self._told("nvmlDeviceGetName", handle) or "GPU"),
            memory_total=int(memory.total),
            memory_free=int(memory.free),
            utilisation=None if utilisation is None else utilisation.gpu / 100,
            temperature=self._told("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            power=None if power is None else power / 1000,
            ecc_errors=self._told(
                "nvmlDeviceGetTotalEccErrors", handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            ),
        )

    def _told(self, question: str, *arguments: Any) -> Any:
        """The answer, or None where this GPU, its driver or our rights do not allow it."""
        try:
            return getattr(self._nvml, question)(*arguments)
        except self._nvml.NVMLError:
            return None


def detect_gpus() -> GpuReader:
    """The GPUs of this machine that our environment lets us use; none where there is no NVIDIA driver."""
    try:
        return NvmlReader(os.environ.get("CUDA_VISIBLE_DEVICES"))
    except (OSError, ImportError) as error:
        log.debug("no GPUs are seen (%s)", error)
        return NoGpuReader()


def visible_indexes(visible: str | None, uuids: Sequence[str]) -> list[int]:
    """Which of the GPUs with these UUIDs a value of CUDA_VISIBLE_DEVICES names; None names all.

    As CUDA does, the list ends at the first entry that is none.
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
    """A number of bytes for people."""
    return f"{count / GIB:.1f} GiB"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
