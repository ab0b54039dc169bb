"""Which model is held by which worker, on which GPUs: decided from the models file and the machine before anything starts.

The machine is given as data, so that any can be decided for. It knows no processes.
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
    """One model worker: its number, its GPUs (none: the CPU) and its model ('': it waits for one)."""

    number: int
    model: str
    devices: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"gpu{self.number}"


def models_to_load(catalogue: Catalogue, names: Sequence[str]) -> list[ModelEntry]:
    """The models to load: those named, else those that say ``load``, else the default one.

    Raises Refusal for a name that the catalogue does not have or that generates nothing, or that is given twice.
    """
    try:
        entries = [catalogue.get(name) for name in names]
        if not names:
            entries = [entry for entry in catalogue.models if entry.load and entry.task == GENERATE] or [catalogue.default()]
    except NotFound as error:
        raise CommandError(f"The models file: {error.message}") from None
    for entry in entries:
        if entry.task != GENERATE:
            raise CommandError(
                f"The models file: {entry.name} does not generate text (its task is {entry.task}); choose another model."
            )
        if entries.count(entry) > 1:
            raise CommandError(f"--model {entry.name} is given twice; for more of it set `replicas` in the models file.")
    return entries


def place_models(
    entries: Sequence[ModelEntry], gpus: Sequence[Gpu], estimate_memory: Callable[[ModelEntry], MemoryEstimate]
) -> list[Replica]:
    """A worker for each replica, and one without a model for each GPU that is left over.

    Models with ``devices`` come first, then the largest. A GPU is shared only by models whose ``gpu_share`` allows it. On a
    machine without GPUs each replica is a worker on the CPU. Raises Refusal, with the arithmetic, for what cannot fit.
    """
    if not gpus:
        return _on_cpu(entries)
    machine = _Machine(gpus)
    needs = {entry.name: estimate_memory(entry) for entry in entries}
    order = sorted(entries, key=lambda entry: (entry.devices is None, -entry.gpus, -needs[entry.name].each))
    placed = {
        entry.name: [machine.take(entry, needs[entry.name], turn) for turn in range(replica_count(entry))] for entry in order
    }
    # In the order in which they were asked for, so that workers are numbered as people expect.
    held = [(entry.name, devices) for entry in entries for devices in placed[entry.name]]
    return _numbered(held, [gpu.index for gpu in gpus if machine.is_unused(gpu)])


def replica_count(entry: ModelEntry) -> int:
    """How many times a model is loaded."""
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
                f"{entry.name} needs {what} and this machine has none; take gpus and devices out of its entry to try the CPU."
            )
    names = [entry.name for entry in entries for _ in range(replica_count(entry))]
    return [Replica(number, name) for number, name in enumerate(names)]


def _numbered(held: Sequence[tuple[str, tuple[int, ...]]], unused: Sequence[int]) -> list[Replica]:
    """A worker has the number of its first GPU; of several on one GPU the others get numbers above those of all GPUs."""
    taken: set[int] = set()
    above = 1 + max([*unused, *(device for _, devices in held for device in devices)])
    result = []
    for name, devices in held:
        number = devices[0]
        if number in taken:
            number, above = above, above + 1
        taken.add(number)
        result.append(Replica(number, name, devices))
    return result + [Replica(index, "", (index,)) for index in unused]


class _Machine:
    """The GPUs with what has been given away of each."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = {gpu.index: gpu for gpu in gpus}
        self._given = dict.fromkeys(self._gpus, 0.0)
        self._room = {gpu.index: gpu.memory_free for gpu in gpus}

    def is_unused(self, gpu: Gpu) -> bool:
        return self._given[gpu.index] == 0

    def take(self, entry: ModelEntry, need: MemoryEstimate, turn: int) -> tuple[int, ...]:
        """GPUs for one replica, ``turn`` counting those of this model from 0. Raises Refusal."""
        count = max(1, entry.gpus)
        if entry.devices is not None:
            chosen = entry.devices[turn * count : (turn + 1) * count]
            self._refuse_missing(entry, chosen)
        else:
            chosen = self._choose(entry, need, count)
        self._refuse_given(entry, chosen)
        lacking = explain_shortage(entry, need, [self._now(index) for index in chosen])
        if lacking:
            raise CommandError(f"{lacking}. Free memory there, lower max_context or max_in_flight, or give it more GPUs (gpus).")
        for index in chosen:
            self._given[index] += entry.gpu_share
            self._room[index] -= need.each
        return tuple(chosen)

    def _choose(self, entry: ModelEntry, need: MemoryEstimate, count: int) -> tuple[int, ...]:
        """The GPUs with the most room among those that are not taken; for a sharing model the fullest one that has room."""
        open_to = [index for index in self._gpus if self._given[index] + entry.gpu_share <= 1.0 + 1e-9]
        if len(open_to) < count:
            have, free = len(self._gpus), len(open_to)
            raise CommandError(
                f"{entry.name} needs {count} GPU{'s' * (count > 1)} for each replica, and of {have} here {free} "
                f"{'is' if free == 1 else 'are'} not taken yet. Load fewer models or replicas, or let models share a GPU (gpu_share)."
            )
        if entry.gpu_share < 1:
            shared = [index for index in open_to if self._given[index] > 0]
            fitting = [index for index in shared if not explain_shortage(entry, need, [self._now(index)])]
            open_to = fitting or open_to
        # In tenths, as what a driver keeps for itself differs by some MiB and must not decide.
        open_to.sort(key=lambda index: (-round(10 * self._room[index] / self._gpus[index].memory_total), index))
        return tuple(sorted(open_to[:count]))

    def _refuse_missing(self, entry: ModelEntry, chosen: Sequence[int]) -> None:
        missing = [str(index) for index in chosen if index not in self._gpus]
        if missing:
            here = ", ".join(map(str, self._gpus))
            raise CommandError(f"{entry.name} is to be on GPU {', '.join(missing)} (devices), and this machine has GPU {here}.")

    def _refuse_given(self, entry: ModelEntry, chosen: Sequence[int]) -> None:
        full = [str(index) for index in chosen if self._given[index] + entry.gpu_share > 1.0 + 1e-9]
        if full:
            raise CommandError(
                f"{entry.name} is to be on GPU {', '.join(full)} (devices), which another model has taken. "
                "Choose another GPU, or let both share it (gpu_share)."
            )

    def _now(self, index: int) -> Gpu:
        gpu = self._gpus[index]
        return Gpu(
            index=index, uuid=gpu.uuid, name=gpu.name, memory_total=gpu.memory_total, memory_free=max(0, self._room[index])
        )
