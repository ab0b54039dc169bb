"""Fixtures of the fault tests: one stack per test file, whose ledger checks the invariants I1 to I5 after every test.

A test file sets the options of its stack in ``STACK_OPTIONS``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.fault_rig.disks import disk
from testing.fault_rig.fault_stack import FaultStack, open_fault_stack


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-seconds", type=float, help="how long the random mix runs")
    parser.addoption("--fault-seed", type=int, help="repeats a random mix")


@pytest.fixture(scope="module")
def shared_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    options = getattr(request.module, "STACK_OPTIONS", {})
    with open_fault_stack(tmp_path_factory.mktemp("stack"), **options) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack: FaultStack) -> Iterator[FaultStack]:
    """The stack of the test file, healthy. The invariants are checked after the test."""
    shared_stack.heal()
    yield shared_stack
    shared_stack.proxy.heal()
    try:
        shared_stack.check_invariants()
    finally:
        for job in shared_stack.ledger.open_jobs:
            shared_stack.ledger.excuse_job(job, "checked already")


@pytest.fixture
def stack_with_a_small_index(tmp_path: Path) -> Iterator[tuple[FaultStack, Path]]:
    """A stack whose index is stored on a disk of 32 MB, and that disk. Failed jobs are retried once."""
    with (
        disk(tmp_path / "stack" / "data" / "chroma", 32) as folder,
        open_fault_stack(tmp_path / "stack", environment={"ENGINEHOUSE_MAX_RETRIES": "1"}) as stack,
    ):
        yield stack, folder
