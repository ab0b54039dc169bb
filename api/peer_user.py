"""User of the process at the other end of a loopback connection, as the Linux kernel reports it (sock_diag(7)).

While no API key exists, a server must not serve the other users of its machine: their processes reach loopback too.
"""

import os
import socket
import struct

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
ANY_STATE = 0xFFFFFFFF
NO_COOKIE = b"\xff" * 8
# Netlink header: length, type, flags, sequence, port. Request: family, protocol, extensions, padding, states.
HEADER = struct.Struct("=IHHII")
REQUEST = struct.Struct("=BBBBI")
# Reply: family, state, timer and retransmissions (4 bytes), the socket's identity (48), expiry, two queue lengths; then user and inode.
OWNER = struct.Struct("=II")
OWNER_OFFSET = HEADER.size + 4 + 48 + 12

Address = tuple[str, int]


def is_other_user(peer: Address, own: Address) -> bool:
    """Whether the connection from ``peer`` to ``own`` belongs to a user other than this process's and root.

    A client that has closed its connection belongs to no user any more, and counts as another one: it could have been anyone's.
    False if the kernel cannot be asked, as on other systems than Linux.
    """
    try:
        found = _socket_owner(peer, own)
    except (OSError, AttributeError):
        return False
    return found is None or found not in (0, os.geteuid())


def _socket_owner(peer: Address, own: Address) -> int | None:
    """The user id of the socket whose local address is ``peer``; None if no process has it open. Raises OSError."""
    family = socket.AF_INET6 if ":" in peer[0].removeprefix("::ffff:") else socket.AF_INET
    local, remote = (socket.inet_pton(family, host.removeprefix("::ffff:")).ljust(16, b"\0") for host, _ in (peer, own))
    identity = struct.pack("!HH", peer[1], own[1]) + local + remote + bytes(4) + NO_COOKIE
    request = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, ANY_STATE) + identity
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1)
        netlink.send(HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + request)
        reply = netlink.recv(4096)
    if HEADER.unpack_from(reply)[1] != SOCK_DIAG_BY_FAMILY:
        return None
    user, inode = OWNER.unpack_from(reply, OWNER_OFFSET)
    return int(user) if inode else None
