"""``enginehouse models load|unload``: change the desired model of a gpu worker.

The command writes to the stack's Redis; the change stays in effect after the command has ended.
"""

import sys
import time
from collections.abc import Sequence

import redis

from cli.errors import CommandError
from cli.safe_text import safe_line
from shared.errors import NotFound
from shared.jobs.model_assignments import ModelAssignment, ModelAssignments
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.models.catalogue import GENERATE, Catalogue
from shared.settings import Settings

POLL_SECONDS = 0.2


class ModelLoader:
    """Loads and unloads models on the gpu workers of one stack."""

    def __init__(self, client: redis.Redis, catalogue: Catalogue, settings: Settings) -> None:
        self._assignments = ModelAssignments(client)
        self._worker_registry = WorkerRegistry(client)
        self._catalogue = catalogue
        self._settings = settings

    def load_model(self, name: str, gpu: str | None, *, wait: float) -> None:
        """Set the desired model of a worker and wait up to ``wait`` seconds until it is loaded. Raises CommandError."""
        self._check_model(name)
        assignments = self._assignments.list_active(2 * self._settings.lease_seconds)
        assignment = _find_worker(assignments, gpu) if gpu is not None else self._choose(name, assignments)
        if name in assignment.unloadable_models:
            raise CommandError(f"{assignment.unloadable_models[name]}.")
        if self._assignments.set_desired_model(assignment.name, name, "operator") is None:
            raise CommandError(f"Worker {assignment.name} no longer exists.")
        self._wait_until_loaded([assignment.name], name, wait)

    def unload_model(self, name: str, gpu: str | None, *, wait: float) -> None:
        """Unload a model from all workers, or from the given one. Raises CommandError."""
        self._check_model(name)
        assignments = self._assignments.list_active(2 * self._settings.lease_seconds)
        holding = [
            assignment
            for assignment in ([_find_worker(assignments, gpu)] if gpu is not None else assignments)
            if assignment.desired_model == name
        ]
        if not holding:
            where = f"worker {gpu}" if gpu is not None else "any worker"
            raise CommandError(f"Model {name!r} is not loaded on {where}: `enginehouse models list` shows loaded models.")
        for assignment in holding:
            self._assignments.set_desired_model(assignment.name, "", "operator", expected=name)
        self._wait_until_loaded([assignment.name for assignment in holding], "", wait)

    def _choose(self, name: str, assignments: Sequence[ModelAssignment]) -> ModelAssignment:
        """The worker that has the model, else one without a model, else the one that has been idle the longest."""
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
            raise CommandError(
                f"No worker can load {name}" + (f": {reasons}." if reasons else "; check that the stack is running.")
            )
        workers = self._workers()
        idle = [
            assignment
            for assignment in able
            if not assignment.desired_model or (assignment.name in workers and not workers[assignment.name].running)
        ]
        if not idle:
            raise CommandError(f"Every worker that can load {name} is busy; select the one to use with --gpu.")
        return min(
            idle,
            key=lambda assignment: (
                assignment.desired_model != "",
                -workers[assignment.name].idle_ms if assignment.name in workers else 0,
            ),
        )

    def _wait_until_loaded(self, names: Sequence[str], model: str, wait: float) -> None:
        result = f"has loaded {model}" if model else "has unloaded its model"
        deadline, printed = time.monotonic() + wait, ""
        while True:
            workers = self._workers()
            states = {name: _state(workers.get(name), model) for name in names}
            for name, text in states.items():
                if text.startswith("failed"):
                    raise CommandError(f"{name}: {text}")
            if not any(states.values()):
                print(f"{', '.join(names)} {result}")
                return
            if time.monotonic() > deadline:
                states_now = safe_line("; ".join(filter(None, states.values())))
                print(f"{', '.join(names)}: {states_now}; still in progress, no longer waiting")
                return
            progress = "; ".join(f"{name}: {text}" for name, text in states.items() if text)
            if progress != printed:
                print(safe_line(progress), file=sys.stderr)
                printed = progress
            time.sleep(POLL_SECONDS)

    def _check_model(self, name: str) -> None:
        try:
            entry = self._catalogue.get_model(name)
        except NotFound as error:
            raise CommandError(f"{self._settings.models_file}: {error.message}") from None
        if entry.task != GENERATE:
            raise CommandError(f"Model {name!r} is an embedding model, which the cpu and io workers always have loaded.")

    def _workers(self) -> dict[str, Worker]:
        alive = self._worker_registry.alive(3 * self._settings.renew_seconds)
        return {worker.name: worker for worker in alive if worker.pool == "gpu"}


def _find_worker(assignments: Sequence[ModelAssignment], gpu: str) -> ModelAssignment:
    found = [assignment for assignment in assignments if gpu in (assignment.name, str(assignment.number))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(assignment.name for assignment in found or assignments) or "none"
    problem = f"Several workers are called {gpu}" if found else f"There is no gpu worker {gpu}"
    raise CommandError(f"{problem}; there are: {names}.")


def _state(worker: Worker | None, model: str) -> str:
    """An empty string if the worker has reached the desired state, else its current state."""
    if worker is None:
        return "starting"
    if worker.model == model and worker.phase in ("ready", "unloaded"):
        return ""
    if worker.model == model and worker.phase == "failed":
        return f"failed: {worker.message}"
    return f"{worker.phase}: {worker.message}" if worker.message else worker.phase
