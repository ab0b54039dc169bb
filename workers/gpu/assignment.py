"""What a gpu worker says of its seat: its GPUs, and which models it could hold there, with the reason where it could not."""

from collections.abc import Sequence

from shared.jobs.model_assignments import ModelAssignment, ModelAssignments
from shared.models.catalogue import GENERATE, Catalogue, ModelEntry
from shared.settings import Settings
from workers.gpu.hardware.devices import Gpu
from workers.gpu.hardware.memory_estimate import estimate_memory, explain_shortage


class WorkerCapabilities:
    """``gpus`` are those of the machine that may be used; the worker has those that its device setting names, or the first."""

    def __init__(self, name: str, home: str, catalogue: Catalogue, settings: Settings, gpus: Sequence[Gpu]) -> None:
        self.name = name
        self.home = home
        self.gpus = select_gpus(settings.worker_device, gpus)
        """Those of this worker; none where it runs on the CPU, or where NVML does not tell."""
        self._settings = settings
        self._on_gpu = bool(self.gpus or settings.worker_device)
        self._count = max(1, len(self.gpus))
        self._loadable_models: list[str] = []
        self._unloadable_models: dict[str, str] = {}
        self._pinned = [entry.name for entry in catalogue.models if entry.pinned]
        for entry in catalogue.models:
            if entry.task == GENERATE:
                reason = self._why_not(entry)
                if reason:
                    self._unloadable_models[entry.name] = reason
                else:
                    self._loadable_models.append(entry.name)

    def take(self, assignments: ModelAssignments) -> ModelAssignment:
        """Tell Redis; the seat that says which model to hold."""
        devices = [str(gpu.index) for gpu in self.gpus] or [word for word in self._settings.worker_device.split(",") if word]
        return assignments.register(
            self.name,
            self.home,
            devices=devices,
            loadable_models=self._loadable_models,
            pinned=self._pinned,
            unloadable_models=self._unloadable_models,
        )

    def _why_not(self, entry: ModelEntry) -> str:
        if not self._on_gpu:
            return f"{entry.name} needs a GPU, and this worker has none" if entry.gpus else ""
        wanted = max(1, entry.gpus)
        if wanted != self._count:
            return f"{entry.name} needs {wanted} GPU{'s' * (wanted > 1)}, and this worker has {self._count}"
        # All memory of the GPU counts: whatever is loaded there now is given up first.
        return explain_shortage(entry, estimate_memory(entry, self._settings.prepared_models), self.gpus, whole=True)


def select_gpus(device: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs that a device setting names, by number or UUID, in its order; the first one if it names none."""
    words = [word.strip() for word in device.split(",") if word.strip()]
    if not words:
        return list(gpus[:1])
    return [
        gpu for word in words for gpu in gpus if word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word))
    ]
