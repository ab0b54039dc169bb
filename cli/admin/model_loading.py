"""``enginehouse models load|unload``: wishing a gpu worker another model than the one it holds.

Works on the Redis of a stack, as the workers do; what is wished here outlives this command.
"""

import sys
import time
from collections.abc import Sequence

import redis

from cli.errors import CommandError
from shared.errors import NotFound
from shared.jobs.model_assignments import ModelAssignment, ModelAssignments
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.models.catalogue import GENERATE, Catalogue, ModelEntry
from shared.settings import Settings

TURN_SECONDS = 0.2


class ModelLoader:
    """The models of one models file and the gpu workers of one stack."""

    def __init__(self, client: redis.Redis, catalogue: Catalogue, settings: Settings) -> None:
        self._assignments = ModelAssignments(client)
        self._worker_registry = WorkerRegistry(client)
        self._catalogue = catalogue
        self._settings = settings

    def load(self, name: str, gpu: str | None, *, wait: float) -> None:
        """Wish a model for a worker, and wait up to ``wait`` seconds until it holds it. Raises Refusal."""
        self._entry(name)
        assignments = self._assignments.list_active(2 * self._settings.lease_seconds)
        assignment = _named(assignments, gpu) if gpu is not None else self._choose(name, assignments)
        if name in assignment.unloadable_models:
            raise CommandError(f"{assignment.unloadable_models[name]}.")
        if self._assignments.set_desired_model(assignment.name, name, "operator") is None:
            raise CommandError(f"{assignment.name} has gone away.")
        self._await([assignment.name], name, wait)

    def unload(self, name: str, gpu: str | None, *, wait: float) -> None:
        """Let the workers that hold a model, or the one named, hold none. Raises Refusal."""
        self._entry(name)
        assignments = self._assignments.list_active(2 * self._settings.lease_seconds)
        holding = [
            assignment
            for assignment in ([_named(assignments, gpu)] if gpu is not None else assignments)
            if assignment.desired_model == name
        ]
        if not holding:
            where = f"worker {gpu}" if gpu is not None else "any worker"
            raise CommandError(f"{name} is not held by {where}: `enginehouse models list` shows what is.")
        for assignment in holding:
            self._assignments.set_desired_model(assignment.name, "", "operator", expected=name)
        self._await([assignment.name for assignment in holding], "", wait)

    def _choose(self, name: str, assignments: Sequence[ModelAssignment]) -> ModelAssignment:
        """The seat that has it already, else an empty one, else the one that has done nothing for longest."""
        for assignment in assignments:
            if assignment.desired_model == name:
                return assignment
        able = [assignment for assignment in assignments if name in assignment.loadable_models]
        if not able:
            reasons = "; ".join(
                f"{assignment.name}: {assignment.unloadable_models[name]}"
                for assignment in assignments
                if name in assignment.unloadable_models
            )
            raise CommandError(f"No worker here could hold {name}" + (f": {reasons}." if reasons else "; is a stack running?"))
        workers = self._workers()
        idle = [
            assignment
            for assignment in able
            if not assignment.desired_model or (assignment.name in workers and not workers[assignment.name].running)
        ]
        if not idle:
            raise CommandError(f"Every worker that could hold {name} has work; say with --gpu which one is to give its model up.")
        return min(
            idle,
            key=lambda assignment: (
                assignment.desired_model != "",
                -workers[assignment.name].idle_ms if assignment.name in workers else 0,
            ),
        )

    def _await(self, names: Sequence[str], model: str, wait: float) -> None:
        what = f"holds {model}" if model else "holds no model"
        deadline, said = time.monotonic() + wait, ""
        while True:
            workers = self._workers()
            states = {name: _state(workers.get(name), model) for name in names}
            failed = [text for text in states.values() if text.startswith("failed")]
            if failed:
                raise CommandError(f"{names[0]}: {failed[0]}")
            if not any(states.values()):
                print(f"{', '.join(names)} {what}")
                return
            if time.monotonic() > deadline:
                print(
                    f"{', '.join(names)}: {'; '.join(filter(None, states.values()))}; it is under way, this command waits no longer"
                )
                return
            now = "; ".join(f"{name}: {text}" for name, text in states.items() if text)
            if now != said:
                print(now, file=sys.stderr)
                said = now
            time.sleep(TURN_SECONDS)

    def _entry(self, name: str) -> ModelEntry:
        try:
            entry = self._catalogue.get(name)
        except NotFound as error:
            raise CommandError(f"{self._settings.models_file}: {error.message}") from None
        if entry.task != GENERATE:
            raise CommandError(f"{name} turns text into vectors: the cpu and io workers hold it, always.")
        return entry

    def _workers(self) -> dict[str, Worker]:
        alive = self._worker_registry.alive(3 * self._settings.renew_seconds)
        return {worker.name: worker for worker in alive if worker.pool == "gpu"}


def _named(assignments: Sequence[ModelAssignment], gpu: str) -> ModelAssignment:
    found = [assignment for assignment in assignments if gpu in (assignment.name, str(assignment.number))]
    if len(found) == 1:
        return found[0]
    there = ", ".join(assignment.name for assignment in found or assignments) or "none"
    what = f"Several hosts have a GPU {gpu}" if found else f"There is no gpu worker {gpu}"
    raise CommandError(f"{what}; there are: {there}.")


def _state(worker: Worker | None, model: str) -> str:
    """Nothing when the worker is where it should be, else a phrase that says how far it is."""
    if worker is None:
        return "between two models"
    if worker.model == model and worker.phase in ("ready", "unloaded"):
        return ""
    if worker.model == model and worker.phase == "failed":
        return f"failed: {worker.message}"
    return f"{worker.phase}: {worker.message}" if worker.message else worker.phase
