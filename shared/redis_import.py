"""Keep OpenTelemetry out of the import of redis.

If OpenTelemetry is installed, as it is with Chroma, redis imports its metrics. They are never switched on here, and importing them takes
every process a seventh of a second.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class WithoutTelemetry(MetaPathFinder):
    """Reports OpenTelemetry as missing while redis is being imported, which then does without."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] == "opentelemetry" and _is_being_imported("redis"):
            raise ModuleNotFoundError(f"{name} is not imported by redis", name=name)
        return None


def _is_being_imported(name: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def install() -> None:
    """Call this before anything imports redis."""
    sys.meta_path.insert(0, WithoutTelemetry())
