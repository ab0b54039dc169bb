"""Pauses: queues from which no worker claims, and workers that claim nothing, until an operator resumes them.

Running jobs go on. ``eh:paused`` is a hash from ``queue:<queue>`` or ``worker:<name>`` to the time of the pause.
"""

from typing import Any, Literal

import redis

from shared.redis_connection import PREFIX, redis_time_ms

PAUSED = f"{PREFIX}paused"

Target = Literal["queue", "worker"]


class Pauses:
    """The pauses in one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client

    def pause(self, target: Target, name: str) -> None:
        """Let no job be claimed from a queue, or by the worker of this name. The time of an earlier pause stays."""
        self._client.hsetnx(PAUSED, f"{target}:{name}", redis_time_ms(self._client))

    def resume(self, target: Target, name: str) -> None:
        """End a pause. Within a second, maintenance sends the wake-ups that were not sent meanwhile."""
        if target == "queue":
            # Else its length would count as the time between two claims, and estimates would be far too long.
            self._client.delete(f"{PREFIX}queue:{name}:pace")
        self._client.hdel(PAUSED, f"{target}:{name}")

    def since(self, target: Target) -> dict[str, int]:
        """The paused queues, or drained workers, and since when, in Unix milliseconds."""
        prefix = f"{target}:"
        entries = self._client.hgetall(PAUSED).items()
        return {name.removeprefix(prefix): int(since) for name, since in entries if name.startswith(prefix)}

    def is_paused(self, target: Target, name: str) -> bool:
        return bool(self._client.hexists(PAUSED, f"{target}:{name}"))
