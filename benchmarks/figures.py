"""Printing figures, and the arithmetic of latencies."""

import json
import os
import platform
from collections.abc import Sequence


def figure(name: str, value: float, unit: str, **about: object) -> None:
    """One JSON line: what was measured, on what."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(json.dumps({"figure": name, "value": round(value, 4), "unit": unit, **about, "machine": machine}), flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
