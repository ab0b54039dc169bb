"""What this machine has for CUDA: GPUs, their driver, and installed libraries. Does not import torch, which takes seconds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workers.gpu.hardware.devices import Gpu, NvmlReader

DRIVER_FILE = Path("/proc/driver/nvidia/version")
KERNEL_PACKAGES = ("triton", "flash_attn", "flash_attn_interface", "kernels")
_TORCH_CUDA = re.compile(r"^cuda(?:: [\w\[\]. ]+)? = '([\d.]+)'", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class CudaFacts:
    """``problem`` says why the GPUs cannot be read although there is a driver. ``driver_cuda`` is the newest CUDA that the driver supports,
    and ``torch_cuda`` the one that torch was built for; each is None if it is unknown, or for torch without CUDA. ``packages`` are those
    of ``KERNEL_PACKAGES`` that are installed."""

    gpus: Sequence[Gpu] = ()
    problem: str = ""
    has_torch: bool = False
    driver_cuda: tuple[int, int] | None = None
    torch_cuda: tuple[int, int] | None = None
    packages: frozenset[str] = frozenset()


def read_cuda_facts(environment: Mapping[str, str], driver_file: Path = DRIVER_FILE) -> CudaFacts:
    """The facts of this machine."""
    gpus: Sequence[Gpu] = ()
    driver_cuda, problem = None, ""
    try:
        gpus = NvmlReader(environment.get("CUDA_VISIBLE_DEVICES")).read_gpus()
        driver_cuda = _driver_cuda()
    except (OSError, ImportError) as error:
        problem = str(error) if driver_file.exists() else ""
    torch = find_spec("torch")
    return CudaFacts(
        gpus=gpus,
        problem=problem,
        has_torch=torch is not None,
        driver_cuda=driver_cuda,
        torch_cuda=_torch_cuda(Path(torch.origin).parent) if torch is not None and torch.origin else None,
        packages=frozenset(name for name in KERNEL_PACKAGES if find_spec(name) is not None),
    )


def _driver_cuda() -> tuple[int, int] | None:
    import pynvml

    nvml: Any = pynvml
    try:
        number = int(nvml.nvmlSystemGetCudaDriverVersion())
    except nvml.NVMLError:
        return None
    return number // 1000, number % 1000 // 10


def _torch_cuda(folder: Path) -> tuple[int, int] | None:
    try:
        found = _TORCH_CUDA.search((folder / "version.py").read_text(encoding="utf-8"))
    except OSError:
        return None
    if found is None:
        return None
    major, _, minor = found[1].partition(".")
    return int(major), int(minor.split(".")[0] or 0)
