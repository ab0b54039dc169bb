"""Which addresses a webhook may have: the guard against making this server call what only it can reach.

The URL is read strictly, every address that its name resolves to is checked, and what was checked is what may be dialled:
a caller that resolves the name again is open to rebinding. Knows nothing of HTTP.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

LONGEST_URL = 2048

# Python's `is_global` differs between versions and lets some of these through, so they are written out
# (IANA's registries of special-purpose addresses).
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # Inside 2000::/3: protocol assignments with Teredo, benchmarking and ORCHID; documentation; AS112; 6to4.
        *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)
# Every other IPv6 range (mapped, compatible and translated IPv4, NAT64, local, multicast …) lies outside of this one.
_UNICAST = ipaddress.IPv6Network("2000::/3")

_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)")


class AddressRefused(Exception):
    """This address must not be called; the text says why, for people."""


class Unresolved(Exception):
    """The name has no address now; it may have one later. ``unknown``: the resolver knows that there is no such name."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


@dataclass(frozen=True)
class Target:
    """What a URL names. ``host`` is a name or an address without brackets; ``path`` has the query with it."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port: deliveries to one place share its limit."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(url: str) -> Target:
    """Read a URL, with none of the leniency that lets two readers see two hosts in it. Raises AddressRefused."""
    if len(url) > LONGEST_URL:
        raise AddressRefused(f"must have at most {LONGEST_URL} characters")
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise AddressRefused("must be written in printable ASCII without spaces and backslashes (a host name as xn--…)")
    if not re.match(r"https?://[^/?#]", url, re.IGNORECASE):
        raise AddressRefused("must begin with http:// or https:// and a host")
    if "#" in url:
        raise AddressRefused("must have no fragment")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AddressRefused("has a host or port that cannot be read") from None
    if "@" in parts.netloc:
        raise AddressRefused("must have no user name or password")
    secure = parts.scheme == "https"
    if port == 0 or (port is None and parts.netloc.endswith(":")):
        raise AddressRefused("has a port that cannot be read")
    bracketed = parts.netloc.startswith("[")
    _check_host(host, bracketed=bracketed)
    if bracketed and not re.fullmatch(r"\[[^\]]*\](:\d+)?", parts.netloc):
        raise AddressRefused("has a host or port that cannot be read")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, host, port or (443 if secure else 80), path)


def parse_networks(text: str) -> tuple[Network, ...]:
    """The ranges of a list separated by commas. Raises ValueError naming the first that is none."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


class AddressPolicy:
    """Answers which addresses of a target may be dialled. ``allowed`` are ranges that are open although they are not public;
    ``resolve`` (host and port to addresses) is for tests."""

    def __init__(self, allowed: Iterable[Network] = (), resolve: Resolve | None = None) -> None:
        self._allowed = tuple(allowed)
        self._resolve = resolve or _resolve

    def check(self, address: str) -> None:
        """Raises AddressRefused unless this address (an IP address) may be dialled."""
        try:
            given: Address = ipaddress.ip_address(address)
        except ValueError:
            raise AddressRefused(f"leads to {address[:80]!r}, which is no address") from None
        if getattr(given, "scope_id", None) is not None:
            raise AddressRefused(f"leads to {given}, which means something on this machine only")
        inner = (given.ipv4_mapped if isinstance(given, ipaddress.IPv6Address) else None) or given
        if any(candidate in network for candidate in (given, inner) for network in self._allowed):
            return
        if not _is_public(inner):
            raise AddressRefused(
                f"leads to {given}, which is not a public address; ENGINEHOUSE_WEBHOOK_ALLOW can open ranges of others"
            )

    def addresses(self, target: Target, seconds: float = 5.0) -> list[str]:
        """The addresses of a target, all of them checked; dial one of them and resolve no more.

        Raises AddressRefused when any of them is refused, and Unresolved when there is none within ``seconds``.
        """
        found = _literal(target.host) or self._resolved(target, seconds)
        for address in found:
            self.check(address)
        return found

    def _resolved(self, target: Target, seconds: float) -> list[str]:
        """Asking for a name may take far longer than anybody waits, so it is done aside."""
        outcome: list[Any] = []

        def ask() -> None:
            try:
                outcome.append(list(dict.fromkeys(self._resolve(target.host, target.port))))
            except (OSError, UnicodeError) as error:
                outcome.append(error)

        asking = threading.Thread(target=ask, name="resolve", daemon=True)
        asking.start()
        asking.join(seconds)
        if not outcome:
            raise Unresolved(f"{target.host} could not be resolved within {seconds:g} s")
        if isinstance(outcome[0], Exception) or not outcome[0]:
            unknown = getattr(outcome[0], "errno", None) in _NO_SUCH_NAME
            raise Unresolved(f"{target.host} cannot be resolved", unknown=unknown)
        return list(outcome[0])


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    if any(address in network for network in _REFUSED):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_link_local


def _check_host(host: str, *, bracketed: bool) -> None:
    if bracketed:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise AddressRefused("has an IPv6 address that cannot be read") from None
        if "%" in host:
            raise AddressRefused("must have no zone in its address")
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefused("has a host that is no host name")
    if _NUMBER.fullmatch(labels[-1]):
        # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to some resolvers and other things to others.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise AddressRefused("has an IPv4 address that is not written as four decimal numbers") from None


def _literal(host: str) -> list[str]:
    """The address that a host is by itself, without asking anybody."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        name = host.lower().removesuffix(".")
        # These names are loopback whatever a resolver says (RFC 6761).
        return ["127.0.0.1"] if name == "localhost" or name.endswith(".localhost") else []


def _resolve(host: str, port: int) -> list[str]:
    return [str(authority[0]) for *_, authority in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
