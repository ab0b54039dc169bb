"""The seats of a stack that starts: what ran on this host before is forgotten, so that the command line and the models file rule."""

import socket
from collections.abc import Sequence

import redis

from cli.placement import Replica
from shared.jobs.seats import Seats
from shared.jobs.workforce import Workforce

SILENCE_SECONDS = 30.0


def take_seats(client: redis.Redis, replicas: Sequence[Replica]) -> None:
    """Wish each replica's model for its worker, which tells the rest when it starts. Workers of this host that live and are not
    ours keep their seats."""
    host = f"@{socket.gethostname()}"
    seats = Seats(client)
    alive = {worker.name for worker in Workforce(client).alive(SILENCE_SECONDS)}
    ours = {f"{replica.name}{host}": replica for replica in replicas}
    seats.forget(
        [seat.name for seat in seats.all() if seat.name.endswith(host) and (seat.name in ours or seat.name not in alive)]
    )
    for name, replica in ours.items():
        seats.take(name, replica.model, devices=list(map(str, replica.devices)))
