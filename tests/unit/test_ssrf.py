"""SSRF protection: every way to write an address that is not public, and names that resolve to one, are refused."""

# ruff: noqa: RUF001  such addresses contain characters that look like digits

import socket
import threading
from collections.abc import Sequence

import pytest

from shared.errors import SettingsError
from shared.settings_sources import from_environment
from shared.webhooks.ssrf import AddressPolicy, AddressRefused, Unresolved, parse, parse_networks

ALLOWED = (
    ("http://8.8.8.8/", "8.8.8.8", 80, "/"),
    ("https://8.8.8.8", "8.8.8.8", 443, "/"),
    ("http://1.1.1.1:8080/hook?a=1&b=2", "1.1.1.1", 8080, "/hook?a=1&b=2"),
    ("HTTPS://93.184.215.14/x", "93.184.215.14", 443, "/x"),
    ("http://172.15.255.255/", "172.15.255.255", 80, "/"),
    ("http://172.32.0.1/", "172.32.0.1", 80, "/"),
    ("http://100.63.255.255/", "100.63.255.255", 80, "/"),
    ("http://100.128.0.1/", "100.128.0.1", 80, "/"),
    ("http://198.20.0.1/", "198.20.0.1", 80, "/"),
    ("http://223.255.255.255/", "223.255.255.255", 80, "/"),
    ("https://[2606:4700:4700::1111]/", "2606:4700:4700::1111", 443, "/"),
    ("https://[2a00:1450:4001:80b::200e]:8443/a", "2a00:1450:4001:80b::200e", 8443, "/a"),
)

NOT_PUBLIC = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255"),
    *("192.168.0.1", "192.168.255.255", "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.127.255.255", "192.0.0.1"),
    *("192.0.0.9", "192.0.0.170", "192.0.2.1", "198.51.100.7", "203.0.113.9", "198.18.0.1", "198.19.255.255"),
    *("192.88.99.1", "192.31.196.1", "192.175.48.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::127.0.0.1]"),
    *("[::ffff:169.254.169.254]", "[::10.0.0.1]", "[::8.8.8.8]", "[::ffff:0:127.0.0.1]", "[64:ff9b::7f00:1]"),
    *("[64:ff9b::8.8.8.8]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::1]", "[2002:808:808::1]", "[2001::1]"),
    *("[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[2001:2::1]", "[2001:10::1]", "[2001:20::1]", "[2001:db8::1]"),
    *("[3fff::1]", "[5f00::1]", "[100::1]", "[fc00::1]", "[fd12:3456:789a::1]", "[fe80::1]", "[febf::1]", "[fec0::1]"),
    *("[feff::1]", "[ff02::1]", "[ff0e::1]", "[2620:4f:8000::1]", "[1::1]", "[e000::1]"),
)

LOOPBACK_NAMES = ("localhost", "LOCALHOST", "localhost.", "anything.localhost", "a.b.LocalHost.")

MALFORMED_HOSTS = (
    *("2130706433", "0x7f000001", "0X7F.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "0", "0x7f.1", "017700000001", "127.0.0.01"),
    *("8.8.8.8.8", "8.8.8", "256.1.1.1", "0x", "1.2.3.4.", "①②⑦.⓪.⓪.①", "１２７.０.０.１", "127。0。0。1", "bücher.example"),
    *("user@8.8.8.8", "user:secret@8.8.8.8", "8.8.8.8@127.0.0.1", "8.8.8.8:80@127.0.0.1", "8.8.8.8\\@127.0.0.1"),
    *("8.8.8.8:0", "8.8.8.8:", "8.8.8.8:65536", "8.8.8.8:-1", "8.8.8.8:http", "8.8.8.8:８０", "8.8.8.8 .example", "8.8.8.8\t"),
    *("[fe80::1%25eth0]", "[::1", "::1", "[::1]x", "[v1.x]", "[127.0.0.1]", "%6c%6f%63alhost", "a..example", "-a.example"),
    *(f"{'a' * 64}.example", ".".join(["a" * 60] * 5), "exa$mple.com", "", "8.8.8.8\n", "8.8.8.8\r\nHost: x"),
)

INVALID_URLS = (
    *("ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/", "//8.8.8.8/", "8.8.8.8", "http:8.8.8.8", "http:/8.8.8.8"),
    *("http:///x", "https://", "unix:/run/redis", "javascript:alert(1)", " http://8.8.8.8/", "http://8.8.8.8/#a", "http://?x"),
    "http://8.8.8.8/" + "a" * 2048,
)


def must_not_resolve(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host} was resolved")


def resolving_to(*addresses: str) -> AddressPolicy:
    return AddressPolicy(resolve=lambda host, port: addresses)


@pytest.mark.parametrize(("url", "host", "port", "path"), ALLOWED)
def test_a_public_address_may_be_dialled(url: str, host: str, port: int, path: str) -> None:
    target = parse(url)
    assert (target.host, target.port, target.path, target.secure) == (host, port, path, url.lower().startswith("https"))
    assert AddressPolicy(resolve=must_not_resolve).addresses(target) == [host]


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(host: str) -> None:
    target = parse(f"http://{host}:8080/hook")
    with pytest.raises(AddressRefused):
        AddressPolicy(resolve=must_not_resolve).addresses(target)


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_a_name_with_one_address_that_is_not_public_is_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        resolving_to("8.8.8.8", host.strip("[]"), "1.1.1.1").addresses(parse("https://hook.example/"))


@pytest.mark.parametrize("host", LOOPBACK_NAMES)
def test_a_loopback_name_is_refused_without_resolving_it(host: str) -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy(resolve=must_not_resolve).addresses(parse(f"http://{host}/"))


@pytest.mark.parametrize("host", MALFORMED_HOSTS)
def test_a_host_that_parsers_read_differently_is_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        parse(f"http://{host}/")


@pytest.mark.parametrize("url", INVALID_URLS)
def test_a_url_that_is_not_plain_http_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        parse(url)


@pytest.mark.parametrize("answer", ["fe80::1%eth0", "::1%lo", "2606:4700::1%eth0", "not an address", ""])
def test_a_resolved_address_that_is_not_plain_and_public_is_refused(answer: str) -> None:
    with pytest.raises(AddressRefused):
        resolving_to(answer).addresses(parse("https://hook.example/"))


def test_a_setting_allows_ranges_and_nothing_else() -> None:
    policy = AddressPolicy(parse_networks("127.0.0.0/8, fd00:1::/32,"), resolve=must_not_resolve)
    for allowed in ("127.0.0.1", "127.9.9.9", "localhost", "[::ffff:127.0.0.1]", "[fd00:1::7]"):
        assert policy.addresses(parse(f"http://{allowed}/"))
    for refused in ("10.0.0.1", "[::1]", "[fd00:2::7]", "169.254.169.254", "[::127.0.0.1]"):
        with pytest.raises(AddressRefused):
            policy.addresses(parse(f"http://{refused}/"))


def test_an_invalid_range_stops_the_start() -> None:
    for text in ("10.0.0.1/8", "everything", "10.0.0.0/8,nonsense"):
        with pytest.raises(SettingsError, match="ENGINEHOUSE_WEBHOOK_ALLOW"):
            from_environment({"ENGINEHOUSE_WEBHOOK_ALLOW": text})


def test_a_name_without_an_address_differs_from_a_refused_one() -> None:
    def fails(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    for policy in (AddressPolicy(resolve=fails), resolving_to()):
        with pytest.raises(Unresolved):
            policy.addresses(parse("https://hook.example/"))


def test_a_hanging_resolver_does_not_block() -> None:
    hold = threading.Event()

    def hangs(host: str, port: int) -> Sequence[str]:
        hold.wait(60)
        return ["8.8.8.8"]

    try:
        with pytest.raises(Unresolved):
            AddressPolicy(resolve=hangs).addresses(parse("https://hook.example/"), seconds=0.05)
    finally:
        hold.set()


def test_each_resolved_address_is_returned_once() -> None:
    assert resolving_to("8.8.8.8", "8.8.8.8", "1.1.1.1").addresses(parse("https://hook.example/")) == ["8.8.8.8", "1.1.1.1"]
