"""The seats of a stack that starts: what ran on this host before is forgotten, so that the command line and the models file rule."""

import socket
from collections.abc import Sequence

import redis

from cli.local.placement import Replica
from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.worker_registry import WorkerRegistry

SILENCE_SECONDS = 30.0


def assign_models(client: redis.Redis, replicas: Sequence[Replica]) -> None:
    """Wish each replica's model for its worker, which tells the rest when it starts. Workers of this host that live and are not
    ours keep their seats."""
    host = f"@{socket.gethostname()}"
    assignments = ModelAssignments(client)
    alive = {worker.name for worker in WorkerRegistry(client).alive(SILENCE_SECONDS)}
    ours = {f"{replica.name}{host}": replica for replica in replicas}
    assignments.forget_workers(
        [
            assignment.name
            for assignment in assignments.list_all()
            if assignment.name.endswith(host) and (assignment.name in ours or assignment.name not in alive)
        ]
    )
    for name, replica in ours.items():
        assignments.register(name, replica.model, devices=list(map(str, replica.devices)))
