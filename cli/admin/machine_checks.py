"""Checks of this machine for ``enginehouse doctor``: packages, disk, limits, sandbox, OCR, models, GPUs."""

import importlib.metadata
import os
import resource
import sys
from collections.abc import Iterator, Sequence

from packaging.requirements import Requirement

from cli.admin.findings import Finding
from shared.disk_space import DiskSpace
from shared.errors import EnginehouseError, SettingsError
from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from workers.cpu.ocr.installation import find_problems as find_ocr_problems
from workers.cpu.sandbox.sandbox import missing_protections
from workers.gpu.hardware.cuda_facts import CudaFacts

MIN_PYTHON = (3, 11)
HOT_CELSIUS = 88
# One descriptor for each waiting client's connection, and some for files and other connections.
DESCRIPTORS_PER_THREAD = 4


def check_versions(requirements: Sequence[str] | None = None) -> Iterator[Finding]:
    """Python, and the packages that this version was tested with. Packages of extras are checked only if they are installed."""
    if sys.version_info < MIN_PYTHON:
        yield Finding("python", f"Python {sys.version.split()[0]} is too old.", "Install Python 3.11 or newer.")
    if requirements is None:
        try:
            requirements = importlib.metadata.requires("enginehouse") or ()
        except importlib.metadata.PackageNotFoundError:
            return
    for requirement in map(Requirement, requirements):
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        command = f"Run pip install '{requirement.name}{requirement.specifier}'."
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if needed:
                yield Finding("packages", f"{requirement.name} is not installed.", command)
            continue
        if not requirement.specifier.contains(version.partition("+")[0], prereleases=True):
            yield Finding("packages", f"{requirement.name} {version} is installed, which was not tested.", command)


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Space and access of the data folder."""
    folder = next(path for path in (settings.data_dir.absolute(), *settings.data_dir.absolute().parents) if path.exists())
    if not os.access(folder, os.W_OK):
        yield Finding(
            "disk", f"{folder} cannot be written by this user.", "Change its owner, or choose another folder with --data."
        )
    if shortage := DiskSpace(folder, settings.min_free_bytes).shortage():
        yield Finding(
            "disk",
            f"The disk of {folder} is nearly full: jobs and uploads are refused until {shortage:,} more bytes are free.",
            "Delete documents or files there, or move the data folder to a larger disk.",
        )


def check_descriptors(settings: Settings) -> Iterator[Finding]:
    """The limit of open files, which waiting clients need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = DESCRIPTORS_PER_THREAD * settings.api_threads
    if hard != resource.RLIM_INFINITY and hard < needed:
        yield Finding(
            "limits",
            f"A process may open {hard:,} files, and an API process needs up to {needed:,}.",
            "Raise the limit (ulimit -Hn, LimitNOFILE= of systemd), or lower ENGINEHOUSE_API_THREADS.",
        )


def check_sandbox() -> Iterator[Finding]:
    """What the kernel lacks for the sandbox in which files are read."""
    for problem in missing_protections():
        yield Finding(
            "sandbox",
            problem,
            "Use Linux 5.13 or newer with Landlock and seccomp enabled, in containers with their default seccomp profile.",
        )


def check_ocr(settings: Settings) -> Iterator[Finding]:
    """The OCR engine of the settings."""
    for problem in find_ocr_problems(settings.ocr_engine, settings.ocr_language_list):
        sentence, _, fix = problem.partition(". ")
        yield Finding("ocr", f"{sentence}.", f"{fix} ENGINEHOUSE_OCR_ENGINE=off turns OCR off.")


def check_models(settings: Settings) -> Iterator[Finding]:
    """The models file."""
    try:
        load_catalogue(settings.models_file, engine=settings.engine)
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("models", problem, f"Correct {settings.models_file}.")
    except EnginehouseError as error:
        yield Finding("models", error.message, f"Correct {settings.models_file}.")


def check_gpus(facts: CudaFacts) -> Iterator[Finding]:
    """The driver, the GPUs, and the libraries that use them. A machine without GPUs has no findings."""
    if facts.problem:
        yield Finding("gpu", facts.problem, "Install nvidia-ml-py, and reload the driver or restart the machine.")
    if not facts.gpus:
        return
    for gpu in facts.gpus:
        if gpu.ecc_errors:
            yield Finding("gpu", f"GPU {gpu.index} has {gpu.ecc_errors} uncorrected memory errors.", "Reset or replace it.")
        if gpu.temperature is not None and gpu.temperature > HOT_CELSIUS:
            yield Finding("gpu", f"GPU {gpu.index} is at {gpu.temperature:.0f} °C.", "Check fans, air flow and its power limit.")
    if facts.has_torch and facts.torch_cuda is None:
        yield Finding("gpu", "torch is built for CPUs only, so GPUs are not used.", "Install the build of torch 2.13.0 for CUDA.")
        return
    if facts.torch_cuda is not None and facts.driver_cuda is not None and facts.torch_cuda[0] > facts.driver_cuda[0]:
        built, driver = (".".join(map(str, version)) for version in (facts.torch_cuda, facts.driver_cuda))
        yield Finding("driver", f"torch needs CUDA {built}, and the driver supports {driver}.", "Install a newer NVIDIA driver.")
    if not facts.has_torch:
        return
    if "triton" not in facts.packages:
        yield Finding("kernels", "triton is not installed, so kernels are not fused.", "Run pip install triton.")
    if not facts.packages & {"flash_attn", "flash_attn_interface", "kernels"}:
        yield Finding(
            "kernels",
            "FlashAttention is not installed, so the KV cache is copied in each step.",
            "Install flash-attn (flash-attn-3 on Hopper), or the package kernels with access to the hub.",
        )
