"""SSRF protection: which addresses webhooks and downloads may call, so that clients cannot make this server call internal services.

URLs are parsed strictly, and every address that the host name resolves to is checked. Callers must connect to a checked
address: resolving the name again would allow DNS rebinding.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

MAX_URL_LENGTH = 2048

# Python's `is_global` differs between versions and accepts some of these ranges, so they are listed explicitly
# (from IANA's registries of special-purpose addresses).
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
# Every other IPv6 range (mapped, compatible and translated IPv4, NAT64, local, multicast …) is outside this one.
_UNICAST = ipaddress.IPv6Network("2000::/3")

_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)")


class AddressRefused(Exception):
    """The address must not be called. The message has the reason."""


class Unresolved(Exception):
    """The name has no address now, but may have one later. ``unknown``: the resolver reports that the name does not exist."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


@dataclass(frozen=True)
class Target:
    """A parsed URL. ``host`` is a name or an address without brackets; ``path`` includes the query."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port. Deliveries to the same authority share one limit."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def file_name(self) -> str:
        """The name of a file that is fetched from here: the URL without its scheme, and without a port that goes without saying."""
        parts = urlsplit(self.path)
        path = unquote(parts.path, errors="replace")
        path = path + "index.html" if path.endswith("/") else path
        host = self.authority if self.port != (443 if self.secure else 80) else self.host
        return f"{host}{path}{f'?{parts.query}' if parts.query else ''}"


def parse(url: str) -> Target:
    """Parse a URL strictly, so that no other parser can find a different host in it. Raises AddressRefused."""
    if len(url) > MAX_URL_LENGTH:
        raise AddressRefused(f"must have at most {MAX_URL_LENGTH} characters")
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise AddressRefused("must be printable ASCII without spaces and backslashes (write host names as xn--…)")
    if not re.match(r"https?://[^/?#]", url, re.IGNORECASE):
        raise AddressRefused("must begin with http:// or https:// and a host")
    if "#" in url:
        raise AddressRefused("must not have a fragment")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AddressRefused("has an invalid host or port") from None
    if "@" in parts.netloc:
        raise AddressRefused("must not contain a user name or password")
    secure = parts.scheme == "https"
    if port == 0 or (port is None and parts.netloc.endswith(":")):
        raise AddressRefused("has an invalid port")
    bracketed = parts.netloc.startswith("[")
    _check_host(host, bracketed=bracketed)
    if bracketed and not re.fullmatch(r"\[[^\]]*\](:[0-9]+)?", parts.netloc):
        raise AddressRefused("has an invalid host or port")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, host, port or (443 if secure else 80), path)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse a comma-separated list of address ranges. Raises ValueError with the first invalid one."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


class AddressPolicy:
    """Decides which addresses of a target may be called.

    ``allowed`` are non-public ranges that may be called anyway, and ``setting`` allows them; ``resolve`` (host and port to
    addresses) is for tests.
    """

    def __init__(
        self, allowed: Iterable[Network] = (), resolve: Resolve | None = None, *, setting: str = "ENGINEHOUSE_WEBHOOK_ALLOW"
    ) -> None:
        self._setting = setting
        self._allowed = tuple(allowed)
        self._resolve = resolve or _resolve

    def check(self, address: str) -> None:
        """Raise AddressRefused unless this IP address may be called."""
        try:
            parsed: Address = ipaddress.ip_address(address)
        except ValueError:
            raise AddressRefused(f"resolves to {address[:80]!r}, which is not an IP address") from None
        if getattr(parsed, "scope_id", None) is not None:
            raise AddressRefused(f"resolves to {parsed}, which is only valid on this machine")
        inner = (parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None) or parsed
        if any(candidate in network for candidate in (parsed, inner) for network in self._allowed):
            return
        if not _is_public(inner):
            raise AddressRefused(f"resolves to {parsed}, which is not a public address; {self._setting} can allow other ranges")

    def check_literal(self, target: Target) -> None:
        """Raise AddressRefused if a target names an address, without a resolver, that must not be called."""
        for address in _literal(target.host):
            self.check(address)

    def addresses(self, target: Target, seconds: float = 5.0) -> list[str]:
        """Resolve a target and check all its addresses. Connect to one of them without resolving the name again.

        Raises AddressRefused if any address is refused, and Unresolved if there is none within ``seconds``.
        """
        found = _literal(target.host) or self._resolved(target, seconds)
        for address in found:
            self.check(address)
        return found

    def _resolved(self, target: Target, seconds: float) -> list[str]:
        """Resolve the name in a thread, because the resolver may block for much longer than ``seconds``."""
        outcome: list[Any] = []

        def resolve() -> None:
            try:
                outcome.append(list(dict.fromkeys(self._resolve(target.host, target.port))))
            except (OSError, UnicodeError) as error:
                outcome.append(error)

        resolver = threading.Thread(target=resolve, name="resolve", daemon=True)
        resolver.start()
        resolver.join(seconds)
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
            raise AddressRefused("has an invalid IPv6 address") from None
        if "%" in host:
            raise AddressRefused("must not have a zone in its address")
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefused("has an invalid host name")
    if _NUMBER.fullmatch(labels[-1]):
        # Some resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as 127.0.0.1; others do not.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise AddressRefused("has an IPv4 address that is not four decimal numbers") from None


def _literal(host: str) -> list[str]:
    """The address that a host denotes without a resolver: an IP address or a localhost name."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        name = host.lower().removesuffix(".")
        # These names always mean loopback, even if a resolver returns another address (RFC 6761).
        return ["127.0.0.1"] if name == "localhost" or name.endswith(".localhost") else []


def _resolve(host: str, port: int) -> list[str]:
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
