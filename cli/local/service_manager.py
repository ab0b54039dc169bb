"""Messages to systemd: that the stack is ready, stops, or is still alive (``sd_notify``, https://systemd.io/NOTIFY_SOCKET)."""

import os
import socket
from contextlib import suppress


def notify(message: str) -> None:
    """Send a message such as ``READY=1`` to the service manager that started this process. Without one, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender,
    ):
        sender.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
