"""Placement: decide which worker loads which model on which GPUs, from the models file and the GPUs of the machine.

The GPUs are passed in as data, so that placement can be tested for any machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.errors import CommandError
from shared.errors import NotFound
from shared.models.catalogue import GENERATE, Catalogue, ModelEntry
from workers.gpu.hardware.devices import Gpu
from workers.gpu.hardware.memory_estimate import MemoryEstimate, explain_shortage


@dataclass(frozen=True)
class Replica:
    """A model worker: its number, its GPUs (none for the CPU) and its model (empty if it waits for one)."""

    number: int
    model: str
    devices: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"gpu{self.number}"


def models_to_load(catalogue: Catalogue, names: Sequence[str]) -> list[ModelEntry]:
    """The models to load: the named ones, else those with ``load``, else the default model.

    Raises CommandError for an unknown name, a model that does not generate text, or a name given twice.
    """
    try:
        entries = [catalogue.get_model(name) for name in names]
        if not names:
            entries = [entry for entry in catalogue.models if entry.load and entry.task == GENERATE] or [catalogue.default()]
    except NotFound as error:
        raise CommandError(f"The models file: {error.message}") from None
    for entry in entries:
        if entry.task != GENERATE:
            raise CommandError(
                f"The models file: model {entry.name!r} has the task {entry.task} and cannot generate text; choose another model."
            )
        if entries.count(entry) > 1:
            raise CommandError(
                f"--model {entry.name} is given twice; to load it several times, set `replicas` in the models file."
            )
    return entries


def place_models(
    entries: Sequence[ModelEntry], gpus: Sequence[Gpu], estimate_memory: Callable[[ModelEntry], MemoryEstimate]
) -> list[Replica]:
    """Plan a worker for each replica, and one without a model for each unused GPU.

    Models with ``devices`` are placed first, then the largest. Models share a GPU only if their ``gpu_share`` allows it. On a machine
    without GPUs, each replica is a worker on the CPU; models on servers have such workers everywhere. Raises CommandError, with a memory breakdown, if a model does not fit.
    """
    if not gpus:
        return _on_cpu(entries)
    machine = _Machine(gpus)
    local = [entry for entry in entries if not entry.uses_server]
    estimates = {entry.name: estimate_memory(entry) for entry in local}
    order = sorted(local, key=lambda entry: (entry.devices is None, -entry.gpus, -estimates[entry.name].per_gpu))
    placed = {
        entry.name: [machine.reserve_gpus(entry, estimates[entry.name], number) for number in range(replica_count(entry))]
        for entry in order
    } | {entry.name: [()] * replica_count(entry) for entry in entries if entry.uses_server}
    # In the requested order, so that workers are numbered as expected.
    assigned = [(entry.name, devices) for entry in entries for devices in placed[entry.name]]
    return _number_workers(assigned, [gpu.index for gpu in gpus if machine.is_unused(gpu)])


def replica_count(entry: ModelEntry) -> int:
    """How many times the model is loaded."""
    if entry.devices is not None:
        return len(entry.devices) // max(1, entry.gpus)
    return entry.replicas or 1


def _on_cpu(entries: Sequence[ModelEntry]) -> list[Replica]:
    for entry in entries:
        if entry.gpus or entry.devices is not None:
            what = (
                f"GPUs {', '.join(map(str, entry.devices))}"
                if entry.devices is not None
                else f"{entry.gpus} GPU" + "s" * (entry.gpus > 1)
            )
            raise CommandError(
                f"Model {entry.name!r} needs {what}, but this machine has no GPU; remove gpus and devices from its entry to use the CPU."
            )
    names = [entry.name for entry in entries for _ in range(replica_count(entry))]
    return [Replica(number, name) for number, name in enumerate(names)]


def _number_workers(assigned: Sequence[tuple[str, tuple[int, ...]]], unused: Sequence[int]) -> list[Replica]:
    """Give each worker the number of its first GPU; further workers on the same GPU, and those without one, get numbers above all."""
    taken: set[int] = set()
    above = 1 + max([*unused, *(device for _, devices in assigned for device in devices)])
    result = []
    for name, devices in assigned:
        number = devices[0] if devices else above
        if not devices or number in taken:
            number, above = above, above + 1
        taken.add(number)
        result.append(Replica(number, name, devices))
    return result + [Replica(index, "", (index,)) for index in unused]


class _Machine:
    """The GPUs, with the share and the free memory that remain of each."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = {gpu.index: gpu for gpu in gpus}
        self._shares = dict.fromkeys(self._gpus, 0.0)
        self._free_memory = {gpu.index: gpu.memory_free for gpu in gpus}

    def is_unused(self, gpu: Gpu) -> bool:
        return self._shares[gpu.index] == 0

    def reserve_gpus(self, entry: ModelEntry, estimate: MemoryEstimate, number: int) -> tuple[int, ...]:
        """Reserve GPUs for replica ``number`` of a model, counting from 0. Raises CommandError."""
        count = max(1, entry.gpus)
        if entry.devices is not None:
            chosen = entry.devices[number * count : (number + 1) * count]
            self._check_existing(entry, chosen)
        else:
            chosen = self._choose_gpus(entry, estimate, count)
        self._check_shares(entry, chosen)
        lacking = explain_shortage(entry, estimate, [self._current(index) for index in chosen])
        if lacking:
            raise CommandError(f"{lacking}. Free memory there, lower max_context or max_in_flight, or use more GPUs (gpus).")
        for index in chosen:
            self._shares[index] += entry.gpu_share
            self._free_memory[index] -= estimate.per_gpu
        return tuple(chosen)

    def _choose_gpus(self, entry: ModelEntry, estimate: MemoryEstimate, count: int) -> tuple[int, ...]:
        """The available GPUs with the most free memory; for a model that shares, the fullest GPU on which it fits."""
        available = [index for index in self._gpus if self._shares[index] + entry.gpu_share <= 1.0 + 1e-9]
        if len(available) < count:
            have, free = len(self._gpus), len(available)
            raise CommandError(
                f"Model {entry.name!r} needs {count} GPU{'s' * (count > 1)} per replica, but only {free} of {have} "
                f"{'is' if free == 1 else 'are'} available. Load fewer models or replicas, or let models share a GPU (gpu_share)."
            )
        if entry.gpu_share < 1:
            shared = [index for index in available if self._shares[index] > 0]
            fitting = [index for index in shared if not explain_shortage(entry, estimate, [self._current(index)])]
            available = fitting or available
        # In tenths, so that the few MiB that drivers reserve differently do not decide.
        available.sort(key=lambda index: (-round(10 * self._free_memory[index] / self._gpus[index].memory_total), index))
        return tuple(sorted(available[:count]))

    def _check_existing(self, entry: ModelEntry, chosen: Sequence[int]) -> None:
        missing = [str(index) for index in chosen if index not in self._gpus]
        if missing:
            existing = ", ".join(map(str, self._gpus))
            raise CommandError(
                f"Model {entry.name!r} has GPU {', '.join(missing)} in its devices, but this machine has GPU {existing}."
            )

    def _check_shares(self, entry: ModelEntry, chosen: Sequence[int]) -> None:
        full = [str(index) for index in chosen if self._shares[index] + entry.gpu_share > 1.0 + 1e-9]
        if full:
            raise CommandError(
                f"Model {entry.name!r} has GPU {', '.join(full)} in its devices, which another model uses. "
                "Choose another GPU, or let the models share it (gpu_share)."
            )

    def _current(self, index: int) -> Gpu:
        gpu = self._gpus[index]
        return Gpu(
            index=index, uuid=gpu.uuid, name=gpu.name, memory_total=gpu.memory_total, memory_free=max(0, self._free_memory[index])
        )
