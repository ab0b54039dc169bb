"""One house for each file of faults; after every case the invariants I1 to I5 are judged by its ledger.

``HOUSE`` in a test file gives the options of its house.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.fault_rig.disks import disk
from testing.fault_rig.fault_stack import FaultStack, open_house


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-seconds", type=float, help="how long the random mix goes on")
    parser.addoption("--fault-seed", type=int, help="repeats a random mix")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow_fault: a fault that takes long to show; `make test` leaves it to `make test-faults`")


@pytest.fixture(scope="module")
def shared_house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    options = getattr(request.module, "HOUSE", {})
    with open_house(tmp_path_factory.mktemp("house"), **options) as house:
        yield house


@pytest.fixture
def house(shared_house: FaultStack) -> Iterator[FaultStack]:
    """The file's house, healthy; the invariants are judged when the case is over."""
    shared_house.heal()
    yield shared_house
    shared_house.proxy.heal()
    try:
        shared_house.check()
    finally:
        for job in shared_house.ledger.open:
            shared_house.ledger.excused(job, "judged already")


@pytest.fixture
def house_with_a_small_index(tmp_path: Path) -> Iterator[tuple[FaultStack, Path]]:
    """A house of one test's own, and the disk of 32 MB that its index lies on. What fails there is tried once more."""
    with (
        disk(tmp_path / "house" / "data" / "chroma", 32) as folder,
        open_house(tmp_path / "house", environment={"ENGINEHOUSE_MAX_RETRIES": "1"}) as house,
    ):
        yield house, folder
