"""``enginehouse dead-letters``: jobs whose workers died again and again. To look at, to do again, or to drop."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import redis
from rich.console import Console
from rich.table import Table

from cli.errors import CommandError
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.models import Job
from shared.jobs.transitions import Lifecycle
from shared.settings import Settings


class DeadLetters:
    """The list of the dead, over the stack's Redis."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._lifecycle = Lifecycle(client, settings, CeleryBroker(client).wake)

    def show_all(self, *, as_json: bool) -> None:
        """Print the list, the latest first."""
        dead = self._lifecycle.dead_letters(1000)
        if as_json:
            print(json.dumps([_plain(job) for job in dead]))
            return
        table = Table("job", "kind", "owner", "died", "attempts", "last worker")
        for job in dead:
            when = datetime.fromtimestamp((job.ended_at or 0) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(job.id, job.kind, job.owner, when, str(len(job.attempts)), job.attempts[-1].worker)
        Console().print(table)

    def show(self, job: str) -> None:
        """Print one job, all but its spec and result, which are its owner's."""
        print(json.dumps(_plain(self._find(job)), indent=2))

    def replay(self, job: str) -> None:
        """Do it again as a new job."""
        print(f"{job} is done again as {self._lifecycle.replay(self._find(job)).id}")

    def drop(self, job: str) -> None:
        """Take it off the list."""
        self._lifecycle.remove_dead_letter(self._find(job).id)
        print(f"{job} is off the list; its record stays until its retention is over")

    def _find(self, job: str) -> Job:
        for dead in self._lifecycle.dead_letters(1000):
            if dead.id == job:
                return dead
        raise CommandError(f"Job {job} is not on the list of the dead: `enginehouse dead-letters list` shows it.")


def _plain(job: Job) -> dict[str, object]:
    private = {"spec", "context", "result", "webhook"}
    return {name: value for name, value in asdict(job).items() if name not in private and value not in (None, "", {})}
