"""Capabilities of a GPU worker: its GPUs, and which models it can load on them, with a reason for those that it cannot."""

from collections.abc import Sequence

from shared.jobs.model_assignments import ModelAssignment, ModelAssignments
from shared.models.catalogue import GENERATE, Catalogue, ModelEntry
from shared.settings import Settings
from workers.gpu.hardware.devices import Gpu
from workers.gpu.hardware.memory_estimate import estimate_memory, explain_shortage


class WorkerCapabilities:
    """``gpus`` are the usable GPUs of the machine; the worker has those that its device setting names, or the first.

    ``initial_model`` is what it loads when nobody has requested another; empty for none.
    """

    def __init__(self, name: str, initial_model: str, catalogue: Catalogue, settings: Settings, gpus: Sequence[Gpu]) -> None:
        self.name = name
        self.initial_model = initial_model
        # Such a worker has no GPU, and so would load every other model on the CPU.
        self._only_servers = bool(initial_model) and catalogue.get_model(initial_model).uses_server
        self.gpus = [] if self._only_servers else select_gpus(settings.worker_device, gpus)
        """The worker's own GPUs; none on the CPU, or where NVML reports none."""
        self._settings = settings
        self._has_gpu = bool(self.gpus or settings.worker_device) and not self._only_servers
        self._gpu_count = max(1, len(self.gpus))
        self._loadable_models: list[str] = []
        self._unloadable_models: dict[str, str] = {}
        self._pinned = [entry.name for entry in catalogue.models if entry.pinned]
        for entry in catalogue.models:
            if entry.task == GENERATE:
                reason = self._unloadable_reason(entry)
                if reason:
                    self._unloadable_models[entry.name] = reason
                else:
                    self._loadable_models.append(entry.name)

    def fetch_assignment(self, assignments: ModelAssignments) -> ModelAssignment:
        """Register these capabilities in Redis; returns the assignment, which says which model to load."""
        given = [] if self._only_servers else [word for word in self._settings.worker_device.split(",") if word]
        devices = [str(gpu.index) for gpu in self.gpus] or given
        return assignments.register(
            self.name,
            self.initial_model,
            devices=devices,
            loadable_models=self._loadable_models,
            pinned=self._pinned,
            unloadable_models=self._unloadable_models,
        )

    def _unloadable_reason(self, entry: ModelEntry) -> str:
        if self._only_servers and not entry.uses_server:
            return f"{entry.name} runs on this machine, and this worker is for models on servers"
        if self._has_gpu and entry.uses_server:
            return f"{entry.name} runs on a server, and this worker's GPU is for other models"
        if not self._has_gpu:
            return f"{entry.name} needs a GPU, and this worker has none" if entry.gpus else ""
        count = max(1, entry.gpus)
        if count != self._gpu_count:
            return f"{entry.name} needs {count} GPU{'s' * (count > 1)}, and this worker has {self._gpu_count}"
        # All memory of the GPU counts: the worker unloads its current model first.
        estimate = estimate_memory(entry, self._settings.prepared_models)
        return explain_shortage(entry, estimate, self.gpus, ignore_usage=True)


def select_gpus(device: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs that a device setting names, by index or UUID, in its order; the first one if it is empty."""
    words = [word.strip() for word in device.split(",") if word.strip()]
    if not words:
        return list(gpus[:1])
    return [
        gpu for word in words for gpu in gpus if word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word))
    ]
