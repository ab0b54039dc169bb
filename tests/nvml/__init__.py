"""Simulated GPUs: a replacement for NVIDIA's management library, below all of our code."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")


@dataclass(frozen=True)
class SimulatedGpu:
    """Memory in MiB, as nvidia-smi reports it."""

    total: int = 81559
    free: int = 81000
    utilisation: int = 0
    temperature: int = 30
    milliwatts: int = 70_000
    ecc: int = 0
    xid: int = 0
    name: str = "NVIDIA H100 80GB HBM3"

    @property
    def line(self) -> str:
        return f"{self.total} {self.free} {self.utilisation} {self.temperature} {self.milliwatts} {self.ecc} {self.xid} {self.name}\n"


class SimulatedMachine:
    """GPUs that processes with its ``environment`` see; ``set_gpus`` changes them while the processes run."""

    def __init__(self, folder: Path, *gpus: SimulatedGpu) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler is not None, "simulated GPUs need a C compiler"
        folder.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)]
        subprocess.run(command, check=True)
        self._file = folder / "gpus"
        self.set_gpus(*gpus)
        paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        self.environment = {"LD_LIBRARY_PATH": ":".join(paths), "SIMULATED_GPUS": str(self._file)}

    def set_gpus(self, *gpus: SimulatedGpu) -> None:
        """Replace the machine's GPUs."""
        unfinished = self._file.with_suffix(".unfinished")
        unfinished.write_text("".join(gpu.line for gpu in gpus))
        unfinished.rename(self._file)
