"""Which addresses a webhook may have: every way to write one that is not public, and names that lead there."""

# ruff: noqa: RUF001  letters that look like digits are what such addresses are made of

import socket
import threading
from collections.abc import Sequence

import pytest

from shared.errors import SettingsError
from shared.settings import from_environment
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

NAMES_OF_LOOPBACK = ("localhost", "LOCALHOST", "localhost.", "anything.localhost", "a.b.LocalHost.")

ILL_WRITTEN = (
    *("2130706433", "0x7f000001", "0X7F.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "0", "0x7f.1", "017700000001", "127.0.0.01"),
    *("8.8.8.8.8", "8.8.8", "256.1.1.1", "0x", "1.2.3.4.", "①②⑦.⓪.⓪.①", "１２７.０.０.１", "127。0。0。1", "bücher.example"),
    *("user@8.8.8.8", "user:secret@8.8.8.8", "8.8.8.8@127.0.0.1", "8.8.8.8:80@127.0.0.1", "8.8.8.8\\@127.0.0.1"),
    *("8.8.8.8:0", "8.8.8.8:", "8.8.8.8:65536", "8.8.8.8:-1", "8.8.8.8:http", "8.8.8.8:８０", "8.8.8.8 .example", "8.8.8.8\t"),
    *("[fe80::1%25eth0]", "[::1", "::1", "[::1]x", "[v1.x]", "[127.0.0.1]", "%6c%6f%63alhost", "a..example", "-a.example"),
    *(f"{'a' * 64}.example", ".".join(["a" * 60] * 5), "exa$mple.com", "", "8.8.8.8\n", "8.8.8.8\r\nHost: x"),
)

ILL_SCHEMED = (
    *("ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/", "//8.8.8.8/", "8.8.8.8", "http:8.8.8.8", "http:/8.8.8.8"),
    *("http:///x", "https://", "unix:/run/redis", "javascript:alert(1)", " http://8.8.8.8/", "http://8.8.8.8/#a", "http://?x"),
    "http://8.8.8.8/" + "a" * 2048,
)


def nobody_is_asked(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host} was resolved")


def answering(*addresses: str) -> AddressPolicy:
    return AddressPolicy(resolve=lambda host, port: addresses)


def test_the_table_is_long_enough() -> None:
    assert len(ALLOWED) + len(NOT_PUBLIC) + len(NAMES_OF_LOOPBACK) + len(ILL_WRITTEN) + len(ILL_SCHEMED) > 120


@pytest.mark.parametrize(("url", "host", "port", "path"), ALLOWED)
def test_a_public_address_may_be_dialled(url: str, host: str, port: int, path: str) -> None:
    target = parse(url)
    assert (target.host, target.port, target.path, target.secure) == (host, port, path, url.lower().startswith("https"))
    assert AddressPolicy(resolve=nobody_is_asked).addresses(target) == [host]


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(host: str) -> None:
    target = parse(f"http://{host}:8080/hook")
    with pytest.raises(AddressRefused):
        AddressPolicy(resolve=nobody_is_asked).addresses(target)


@pytest.mark.parametrize("host", NOT_PUBLIC)
def test_a_name_that_leads_there_is_refused_even_among_public_ones(host: str) -> None:
    with pytest.raises(AddressRefused):
        answering("8.8.8.8", host.strip("[]"), "1.1.1.1").addresses(parse("https://hook.example/"))


@pytest.mark.parametrize("host", NAMES_OF_LOOPBACK)
def test_a_name_of_loopback_is_refused_without_asking(host: str) -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy(resolve=nobody_is_asked).addresses(parse(f"http://{host}/"))


@pytest.mark.parametrize("host", ILL_WRITTEN)
def test_a_host_that_can_be_read_in_two_ways_is_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        parse(f"http://{host}/")


@pytest.mark.parametrize("url", ILL_SCHEMED)
def test_what_is_no_plain_http_url_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        parse(url)


@pytest.mark.parametrize("answer", ["fe80::1%eth0", "::1%lo", "2606:4700::1%eth0", "not an address", ""])
def test_an_answer_that_is_no_plain_public_address_is_refused(answer: str) -> None:
    with pytest.raises(AddressRefused):
        answering(answer).addresses(parse("https://hook.example/"))


def test_a_setting_opens_ranges_and_no_more() -> None:
    guard = AddressPolicy(parse_networks("127.0.0.0/8, fd00:1::/32,"), resolve=nobody_is_asked)
    for open_host in ("127.0.0.1", "127.9.9.9", "localhost", "[::ffff:127.0.0.1]", "[fd00:1::7]"):
        assert guard.addresses(parse(f"http://{open_host}/"))
    for closed in ("10.0.0.1", "[::1]", "[fd00:2::7]", "169.254.169.254", "[::127.0.0.1]"):
        with pytest.raises(AddressRefused):
            guard.addresses(parse(f"http://{closed}/"))


def test_a_range_that_is_none_is_refused_at_the_start() -> None:
    for text in ("10.0.0.1/8", "everything", "10.0.0.0/8,nonsense"):
        with pytest.raises(SettingsError, match="ENGINEHOUSE_WEBHOOK_ALLOW"):
            from_environment({"ENGINEHOUSE_WEBHOOK_ALLOW": text})


def test_a_name_without_an_address_differs_from_a_refused_one() -> None:
    def fails(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    for guard in (AddressPolicy(resolve=fails), answering()):
        with pytest.raises(Unresolved):
            guard.addresses(parse("https://hook.example/"))


def test_a_resolver_that_hangs_is_not_waited_for() -> None:
    hold = threading.Event()

    def hangs(host: str, port: int) -> Sequence[str]:
        hold.wait(60)
        return ["8.8.8.8"]

    try:
        with pytest.raises(Unresolved):
            AddressPolicy(resolve=hangs).addresses(parse("https://hook.example/"), seconds=0.05)
    finally:
        hold.set()


def test_every_answer_is_given_once_for_dialling() -> None:
    assert answering("8.8.8.8", "8.8.8.8", "1.1.1.1").addresses(parse("https://hook.example/")) == ["8.8.8.8", "1.1.1.1"]
