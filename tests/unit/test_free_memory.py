"""Memory that a process can still take, in a container and outside."""

from pathlib import Path

import psutil

from shared.machine import free_memory_bytes

MIB = 1024 * 1024


def control_group(folder: Path, limit: str) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{300 * MIB}\n")
    (folder / "memory.stat").write_text(f"anon {150 * MIB}\ninactive_file {100 * MIB}\nactive_file 7\n")
    return folder


def test_in_a_container_its_limit_counts_without_cached_files(tmp_path: Path) -> None:
    assert free_memory_bytes(control_group(tmp_path, str(512 * MIB))) == 312 * MIB


def test_a_container_beyond_its_limit_has_nothing_left(tmp_path: Path) -> None:
    assert free_memory_bytes(control_group(tmp_path, str(100 * MIB))) == 0


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    for group in (control_group(tmp_path, "max"), tmp_path / "absent"):
        assert 0 < free_memory_bytes(group) <= total
