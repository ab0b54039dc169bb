"""``enginehouse models load|unload``: wishing a gpu worker another model than the one it holds.

Works on the Redis of a stack, as the workers do; what is wished here outlives this command.
"""

import sys
import time
from collections.abc import Sequence

import redis

from cli.refusal import Refusal
from shared.errors import NotFound
from shared.jobs.seats import Seat, Seats
from shared.jobs.workforce import Worker, Workforce
from shared.models.catalogue import GENERATE, Catalogue, ModelEntry
from shared.settings import Settings

TURN_SECONDS = 0.2


class Loading:
    """The models of one models file and the gpu workers of one stack."""

    def __init__(self, client: redis.Redis, catalogue: Catalogue, settings: Settings) -> None:
        self._seats = Seats(client)
        self._workforce = Workforce(client)
        self._catalogue = catalogue
        self._settings = settings

    def load(self, name: str, gpu: str | None, *, wait: float) -> None:
        """Wish a model for a worker, and wait up to ``wait`` seconds until it holds it. Raises Refusal."""
        self._entry(name)
        seats = self._seats.taken(2 * self._settings.lease_seconds)
        seat = _named(seats, gpu) if gpu is not None else self._choose(name, seats)
        if name in seat.refuses:
            raise Refusal(f"{seat.refuses[name]}.")
        if self._seats.wish(seat.name, name, "operator") is None:
            raise Refusal(f"{seat.name} has gone away.")
        self._await([seat.name], name, wait)

    def unload(self, name: str, gpu: str | None, *, wait: float) -> None:
        """Let the workers that hold a model, or the one named, hold none. Raises Refusal."""
        self._entry(name)
        seats = self._seats.taken(2 * self._settings.lease_seconds)
        holding = [seat for seat in ([_named(seats, gpu)] if gpu is not None else seats) if seat.wish == name]
        if not holding:
            where = f"worker {gpu}" if gpu is not None else "any worker"
            raise Refusal(f"{name} is not held by {where}: `enginehouse models list` shows what is.")
        for seat in holding:
            self._seats.wish(seat.name, "", "operator", instead_of=name)
        self._await([seat.name for seat in holding], "", wait)

    def _choose(self, name: str, seats: Sequence[Seat]) -> Seat:
        """The seat that has it already, else an empty one, else the one that has done nothing for longest."""
        for seat in seats:
            if seat.wish == name:
                return seat
        able = [seat for seat in seats if name in seat.offers]
        if not able:
            reasons = "; ".join(f"{seat.name}: {seat.refuses[name]}" for seat in seats if name in seat.refuses)
            raise Refusal(f"No worker here could hold {name}" + (f": {reasons}." if reasons else "; is a stack running?"))
        workers = self._workers()
        idle = [seat for seat in able if not seat.wish or (seat.name in workers and not workers[seat.name].running)]
        if not idle:
            raise Refusal(f"Every worker that could hold {name} has work; say with --gpu which one is to give its model up.")
        return min(idle, key=lambda seat: (seat.wish != "", -workers[seat.name].idle_ms if seat.name in workers else 0))

    def _await(self, names: Sequence[str], model: str, wait: float) -> None:
        what = f"holds {model}" if model else "holds no model"
        deadline, said = time.monotonic() + wait, ""
        while True:
            workers = self._workers()
            states = {name: _state(workers.get(name), model) for name in names}
            failed = [text for text in states.values() if text.startswith("failed")]
            if failed:
                raise Refusal(f"{names[0]}: {failed[0]}")
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
            raise Refusal(f"{self._settings.models_file}: {error.message}") from None
        if entry.kind != GENERATE:
            raise Refusal(f"{name} turns text into vectors: the cpu and io workers hold it, always.")
        return entry

    def _workers(self) -> dict[str, Worker]:
        alive = self._workforce.alive(3 * self._settings.renew_seconds)
        return {worker.name: worker for worker in alive if worker.pool == "gpu"}


def _named(seats: Sequence[Seat], gpu: str) -> Seat:
    found = [seat for seat in seats if gpu in (seat.name, str(seat.number))]
    if len(found) == 1:
        return found[0]
    there = ", ".join(seat.name for seat in found or seats) or "none"
    what = f"Several hosts have a GPU {gpu}" if found else f"There is no gpu worker {gpu}"
    raise Refusal(f"{what}; there are: {there}.")


def _state(worker: Worker | None, model: str) -> str:
    """Nothing when the worker is where it should be, else a phrase that says how far it is."""
    if worker is None:
        return "between two models"
    if worker.model == model and worker.phase in ("ready", "unloaded"):
        return ""
    if worker.model == model and worker.phase == "failed":
        return f"failed: {worker.message}"
    return f"{worker.phase}: {worker.message}" if worker.message else worker.phase
