"""Assign models to the workers of a starting stack. Assignments of earlier runs on this host are dropped, so that the command line and
the models file decide."""

import socket
from collections.abc import Sequence

import redis

from cli.local.placement import Replica
from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.worker_registry import WorkerRegistry

ALIVE_SECONDS = 30.0


def assign_models(client: redis.Redis, replicas: Sequence[Replica]) -> None:
    """Register each replica with its model. Other live workers of this host keep their assignments."""
    host = f"@{socket.gethostname()}"
    assignments = ModelAssignments(client)
    alive = {worker.name for worker in WorkerRegistry(client).alive(ALIVE_SECONDS)}
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
