"""Free ports, which servers listen on a moment after they were found."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.local.redis_server import LOWEST_PORT, PORTS_TRIED, free_port

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_is_kept_and_a_taken_one_is_replaced(taken: int) -> None:
    port = free_port()
    assert free_port(port) == port
    assert free_port(taken) not in (0, taken)


@pytest.mark.skipif(not EPHEMERAL.exists(), reason="only Linux says which ports it gives to outgoing connections")
def test_no_outgoing_connection_can_take_the_port() -> None:
    ports = {free_port() for _ in range(50)}
    assert min(ports) >= LOWEST_PORT
    assert max(ports) < int(EPHEMERAL.read_text().split()[0])
    assert len(ports) > 40, "they are chosen at random"


def test_any_port_is_better_than_none(taken: int) -> None:
    port = free_port(choose=lambda ports, count: [taken] * min(count, PORTS_TRIED))
    assert port not in (0, taken)
