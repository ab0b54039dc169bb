"""Benchmark results as JSON lines, each with the device and the library versions that it was measured on."""

import json
import platform
import time
from functools import cache
from importlib import metadata


@cache
def machine() -> dict[str, str]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "python": platform.python_version(),
    }


def report(figure: str, value: float, unit: str, **about: object) -> None:
    """Print one result."""
    result = {"figure": figure, "value": round(value, 4), "unit": unit, **about, **machine(), "at": time.strftime("%Y-%m-%d")}
    print(json.dumps(result), flush=True)


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90 and p99 by nearest rank."""
    ordered = sorted(values)
    return {f"p{percent}": ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))] for percent in (50, 90, 99)}
