"""Messages to systemd: that the stack or a worker is ready, stops, or is still alive (``sd_notify``, https://systemd.io/NOTIFY_SOCKET)."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

SOCKET_VARIABLE = "NOTIFY_SOCKET"


def notify(message: str) -> None:
    """Send a message such as ``READY=1`` to the service manager that started this process. Without one, do nothing."""
    address = os.environ.get(SOCKET_VARIABLE, "")
    if not address:
        return
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender,
    ):
        sender.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)


def without_notify_socket(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child that must not report to the service manager: its messages would count as ours."""
    return {name: value for name, value in environment.items() if name != SOCKET_VARIABLE}
