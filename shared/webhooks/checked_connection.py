"""Connections to checked addresses: for webhooks, and for files that are fetched from URLs. They use no proxy."""

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shared.webhooks.ssrf import AddressPolicy, Target

logger = logging.getLogger(__name__)


@contextmanager
def open_connection(
    policy: AddressPolicy, target: Target, deadline: float, trust: ssl.SSLContext
) -> Iterator[http.client.HTTPConnection]:
    """A connection to the first of the checked addresses that accepts, until ``deadline``, when it is closed whatever it does.

    Raises AddressRefused, Unresolved and OSError.
    """
    with _connect(policy, target, deadline, trust) as connected:
        # A socket's timeout restarts with every byte, so only closing the connection stops an answer that drips.
        closing = threading.Timer(max(0.0, deadline - time.monotonic()), _shut_down, [connected])
        closing.daemon = True
        closing.start()
        try:
            if isinstance(connected, ssl.SSLSocket):
                connected.do_handshake()
            connection = http.client.HTTPConnection(target.host, target.port)
            # The connection exists already, so the name is not resolved a second time.
            connection.sock = connected
            connection.auto_open = 0
            connection.default_port = 443 if target.secure else 80
            yield connection
        finally:
            closing.cancel()


def _connect(policy: AddressPolicy, target: Target, deadline: float, trust: ssl.SSLContext) -> socket.socket:
    """Connect to the first of the checked addresses that accepts. The caller makes the TLS handshake."""
    addresses = policy.addresses(target, deadline - time.monotonic())
    for remaining, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
        seconds = max(0.001, deadline - time.monotonic()) / (remaining + 1)
        try:
            # An IP address is not resolved, so this connects to the address that was checked.
            connected = socket.create_connection((address, target.port), timeout=seconds)
        except OSError:
            if not remaining:
                raise
            continue
        connected.settimeout(max(0.001, deadline - time.monotonic()))
        if not target.secure:
            return connected
        # The certificate must be valid for the name in the URL.
        name = target.host.removesuffix(".")
        return trust.wrap_socket(connected, server_hostname=name, do_handshake_on_connect=False)
    raise TimeoutError(f"no connection to {target.authority}")


def _shut_down(connection: socket.socket) -> None:
    try:
        # Use the plain socket's method: a TLS socket's drops the TLS state under the thread that reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        logger.debug("the connection was already closed")
