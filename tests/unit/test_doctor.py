"""``enginehouse doctor`` finds each problem of a machine and of a Redis, and says how to fix it."""

import os
import resource
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from cli.admin import machine_checks
from cli.admin.findings import Finding
from cli.admin.machine_checks import check_descriptors, check_disk, check_gpus, check_models, check_ocr, check_versions
from cli.admin.stack_checks import check_port, check_redis
from shared.settings import Settings
from workers.gpu.hardware.cuda_facts import CudaFacts, read_cuda_facts
from workers.gpu.hardware.devices import Gpu

GPU = Gpu(index=0, uuid="GPU-1", name="H200", memory_total=2, memory_free=1, temperature=40.0, ecc_errors=0)
GOOD_GPU = CudaFacts(
    gpus=(GPU,), has_torch=True, torch_cuda=(12, 8), driver_cuda=(12, 9), packages=frozenset({"triton", "flash_attn"})
)
GOOD_REDIS = {
    "redis_version": "9.1.2",
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "used_memory": 10,
    "maxmemory": 100,
}


def only(findings: object) -> Finding:
    [finding] = findings  # type: ignore[misc]
    assert finding.problem.endswith(".")
    assert finding.fix.endswith(".")
    return finding  # type: ignore[no-any-return]


def test_the_packages_of_this_installation_are_those_that_were_tested() -> None:
    assert list(check_versions()) == []


def test_a_missing_or_untested_package_is_named_with_the_command_that_installs_it() -> None:
    finding = only(check_versions(["celery==1.0"]))
    assert finding.problem.startswith("celery ")
    assert finding.fix == "Run pip install 'celery==1.0'."
    assert "no-such-package is not installed" in only(check_versions(["no-such-package>=1"])).problem
    assert list(check_versions(['no-such-package>=1; extra == "gpu"'])) == [], "an extra may be left out"


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the system reports of a disk of 100 GiB of which 1 GiB is free."""
    settings = Settings(data_dir=tmp_path / "not" / "created", min_free_bytes=2 * 1024**3)
    disk = [4096, 4096, 100 * 2**18, 2**18, 2**18, 0, 0, 0, 0, 255]
    monkeypatch.setattr("shared.disk_space.os.statvfs", lambda folder: os.statvfs_result(disk))
    finding = only(check_disk(settings))
    assert "1,073,741,824 more bytes" in finding.problem
    disk[3] = disk[4] = 50 * 2**18
    assert list(check_disk(settings)) == []


def test_a_low_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks.resource, "getrlimit", lambda which: (64, 64))
    assert "64 files" in only(check_descriptors(Settings())).problem
    monkeypatch.setattr(machine_checks.resource, "getrlimit", lambda which: (64, resource.RLIM_INFINITY))
    assert list(check_descriptors(Settings())) == []


def test_an_ocr_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(check_ocr(Settings(ocr_engine="off"))) == []
    monkeypatch.setattr("workers.cpu.ocr.installation.find_library", lambda name: None)
    finding = only(check_ocr(Settings(ocr_engine="tesseract")))
    assert finding.problem == "The OCR engine tesseract is not installed."
    assert "tesseract-ocr" in finding.fix


def test_a_language_of_ocr_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.cpu.ocr.installation.find_library", lambda name: "libtesseract.so.5")
    finding = only(check_ocr(Settings(ocr_engine="tesseract", ocr_languages="tlh")))
    assert finding.problem == "ENGINEHOUSE_OCR_LANGUAGES: Tesseract has no data for tlh."
    assert "apt-get install tesseract-ocr-tlh" in finding.fix


def test_an_invalid_models_file(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text('[{"name": "x"}]')
    findings = list(check_models(Settings(models_file=file)))
    assert findings
    assert all(str(file) in finding.fix for finding in findings)


@pytest.mark.parametrize(
    ("facts", "area", "problem"),
    [
        (CudaFacts(problem="NVML does not answer: Unknown Error."), "gpu", "NVML does not answer"),
        (replace(GOOD_GPU, gpus=(replace(GPU, ecc_errors=3),)), "gpu", "3 uncorrected memory errors"),
        (replace(GOOD_GPU, gpus=(replace(GPU, temperature=95.0),)), "gpu", "at 95 °C"),
        (replace(GOOD_GPU, torch_cuda=None), "gpu", "torch is built for CPUs only"),
        (replace(GOOD_GPU, driver_cuda=(11, 4)), "driver", "torch needs CUDA 12.8, and the driver supports 11.4"),
        (replace(GOOD_GPU, packages=frozenset({"flash_attn"})), "kernels", "triton is not installed"),
        (replace(GOOD_GPU, packages=frozenset({"triton"})), "kernels", "FlashAttention is not installed"),
    ],
)
def test_gpus_their_driver_and_kernels(facts: CudaFacts, area: str, problem: str) -> None:
    finding = only(check_gpus(facts))
    assert finding.area == area
    assert problem in finding.problem


def test_a_machine_with_good_gpus_or_none_has_no_findings(tmp_path: Path) -> None:
    assert list(check_gpus(GOOD_GPU)) == []
    assert list(check_gpus(CudaFacts())) == []
    assert read_cuda_facts({"CUDA_VISIBLE_DEVICES": ""}, tmp_path / "no-driver").problem == ""


@pytest.mark.parametrize(
    ("changed", "listpack", "problem"),
    [
        ({"redis_version": "6.2.5"}, 512, "6.2.5 is too old"),
        ({"maxmemory_policy": "allkeys-lru"}, 512, "may evict jobs"),
        ({"aof_enabled": 0}, 512, "loses its jobs"),
        ({"aof_last_write_status": "err"}, 512, "could not write its append-only file"),
        ({"used_memory": 90}, 512, "uses 90% of its memory limit"),
        ({}, 64, "hash-max-listpack-value is 64"),
    ],
)
def test_a_redis_that_would_lose_or_refuse_jobs(changed: dict[str, object], listpack: int, problem: str) -> None:
    assert list(check_redis(GOOD_REDIS, None)) == []
    assert problem in only(check_redis(GOOD_REDIS | changed, listpack)).problem


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        finding = only(check_port(Settings(port=port)))
        assert f"port {port}" in finding.problem
    assert list(check_port(Settings(port=port))) == []
