"""Print benchmark figures, and compute percentiles."""

import json
import os
import platform
from collections.abc import Sequence


def figure(name: str, value: float, unit: str, **about: object) -> None:
    """Print one figure as a JSON line, with the machine that it was measured on."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(json.dumps({"figure": name, "value": round(value, 4), "unit": unit, **about, "machine": machine}), flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
