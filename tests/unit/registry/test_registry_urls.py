"""URLs: read strictly, sent as they are; redirects and addresses (registry-and-store 3.2)."""

import pytest

from ollamad.registry.addresses import (
    AddressRefused,
    AddressScope,
    allowed,
    scope_of,
    scope_of_host,
)
from ollamad.registry.errors import Refused, RegistryError, TransportError
from ollamad.registry.redirects import is_redirect, located, target
from ollamad.registry.urls import BadUrl, parse_url, resolve, shown


@pytest.mark.parametrize(
    ("text", "origin", "sent"),
    [
        ("https://h", ("https", "h", 443), "/"),
        ("HTTP://H:80/x", ("http", "h", 80), "/x"),
        ("https://h:/x", ("https", "h", 443), "/x"),
        ("https://h?a=b", ("https", "h", 443), "/?a=b"),
        (
            "https://h/a%2fb//../c?sig=%2F+&b=1&a=2",
            ("https", "h", 443),
            "/a%2fb//../c?sig=%2F+&b=1&a=2",
        ),
        ("https://h/x#part", ("https", "h", 443), "/x"),
        ("https://h/ü b", ("https", "h", 443), "/%C3%BC%20b"),
        ("http://[::1]:5000/", ("http", "::1", 5000), "/"),
        ("http://[0:0::0001]/", ("http", "::1", 80), "/"),
        ("https://a_b.c-d.test/", ("https", "a_b.c-d.test", 443), "/"),
    ],
)
def test_urls(text: str, origin: tuple[str, str, int], sent: str) -> None:
    url = parse_url(text)
    assert url.origin == origin
    assert url.target == sent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h/x",
        "//h/x",
        "ftp://h/x",
        "file:///etc/passwd",
        "https:/h",
        "https:h",
        "https://",
        "https:///x",
        "https://u:p@h/",
        "https://h@evil/",
        "https://h\\@evil/",
        "https://h:70000/",
        "https://h:0/",
        "https://h:x/",
        "https://h:1:2/",
        "https://h evil/",
        "https://%68/",
        "https://[::1/",
        "https://[::g]/",
        "https://::1/",
        "https://ü/",
        "https://-h/",
        "https://h/a\r\nX: y",
        "https://h/a\x00",
        "https://h/" + "x" * 20000,
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[v1.x]/",
        # A resolver may take these dots and letters for plain ones.
        "https://127\u30020\u30020\u30021/",
        "https://\uff45vil.test/",
        "https://h\u2044x/",
        "https://h\\.evil/",
        "https://h:443:/",
        "https://.h/",
    ],
)
def test_what_is_no_url_that_can_be_asked_for(text: str) -> None:
    with pytest.raises(BadUrl):
        parse_url(text)


def test_user_information_is_not_passed_on() -> None:
    with pytest.raises(BadUrl, match="user information"):
        parse_url("https://h@evil/")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/cdn/x?sig=a%2Fb&z=1&a=2", "https://h:5/cdn/x?sig=a%2Fb&z=1&a=2"),
        ("/a/../b", "https://h:5/a/../b"),
        ("/\\evil.test/x", "https://h:5/\\evil.test/x"),
        ("\\\\evil.test", "https://h:5/v2/\\\\evil.test"),
        ("..//..//evil.test", "https://h:5/evil.test"),
        ("/x#@evil.test", "https://h:5/x"),
        ("/%0d%0aX: y", "https://h:5/%0d%0aX:%20y"),
        ("//other/x", "https://other/x"),
        ("http://other/x", "http://other/x"),
        ("y", "https://h:5/v2/y"),
        ("?z=1", "https://h:5/v2/x?z=1"),
        ("", "https://h:5/v2/x?q"),
        (" /x ", "https://h:5/x"),
    ],
)
def test_locations(location: str, expected: str) -> None:
    assert str(resolve(parse_url("https://h:5/v2/x?q"), location)) == expected


def test_what_is_shown_of_a_url_is_no_secret() -> None:
    url = "https://h/a/b?sig=secret&n=1&secret"
    assert shown(url) == "https://h/a/b?sig=…&n=…&…"
    assert shown("https://u:secret@h/") == "(invalid URL)"


HERE = parse_url("https://r.test/v2/x")


def follow(status: int, method: str, location: str, insecure: bool = False) -> str:
    return str(target(HERE, status, method, location, HERE, insecure=insecure))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_that_are_followed(status: int) -> None:
    assert is_redirect(status, "/y")
    assert not is_redirect(status, None)
    for method in ("GET", "HEAD"):
        assert follow(status, method, "https://cdn.test/y") == "https://cdn.test/y"


@pytest.mark.parametrize("status", [200, 204, 300, 304, 305, 401])
def test_other_answers_are_no_redirects(status: int) -> None:
    assert not is_redirect(status, "/y")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_redirect_that_would_lose_the_body_is_an_error(method: str) -> None:
    for status in (301, 302, 303):
        with pytest.raises(RegistryError, match=str(status)) as caught:
            follow(status, method, "/y")
        assert caught.value.code == status
    for status in (307, 308):
        assert follow(status, method, "/y") == "https://r.test/y"


def test_a_redirect_from_https_to_http_is_refused_unless_insecure() -> None:
    with pytest.raises(Refused, match=r'"r\.test" leads from https to plain http at "cdn\.test:8"'):
        follow(307, "GET", "http://cdn.test:8/y")
    assert follow(307, "GET", "http://cdn.test/y", insecure=True) == "http://cdn.test/y"


@pytest.mark.parametrize(
    "location",
    [
        "gopher://x/",
        "http://[::1",
        "http:x",
        "//[::1/x",
        "//h@evil.test/",
        "///evil.test/",
        "javascript:x",
        "/a\r\nX: y",
    ],
)
def test_a_location_that_is_no_url(location: str) -> None:
    with pytest.raises(TransportError, match="failed to parse Location header"):
        located(HERE, location)


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("8.8.8.8", AddressScope.PUBLIC),
        ("2606:4700::1111", AddressScope.PUBLIC),
        ("10.1.2.3", AddressScope.PRIVATE),
        ("172.31.0.1", AddressScope.PRIVATE),
        ("192.168.0.1", AddressScope.PRIVATE),
        ("100.64.0.1", AddressScope.PRIVATE),
        ("198.18.0.1", AddressScope.PRIVATE),
        ("240.0.0.1", AddressScope.PRIVATE),
        ("fd00::1", AddressScope.PRIVATE),
        ("fec0::1", AddressScope.PRIVATE),
        ("64:ff9b:1::1", AddressScope.PRIVATE),
        ("169.254.169.254", AddressScope.LINK_LOCAL),
        ("224.0.0.1", AddressScope.LINK_LOCAL),
        ("255.255.255.255", AddressScope.LINK_LOCAL),
        ("fe80::1", AddressScope.LINK_LOCAL),
        ("fe80::1%eth0", AddressScope.LINK_LOCAL),
        ("ff02::1", AddressScope.LINK_LOCAL),
        ("127.0.0.1", AddressScope.LOOPBACK),
        ("127.255.1.1", AddressScope.LOOPBACK),
        ("0.0.0.0", AddressScope.LOOPBACK),
        ("0.1.2.3", AddressScope.LOOPBACK),
        ("::1", AddressScope.LOOPBACK),
        ("::", AddressScope.LOOPBACK),
        # IPv4 in IPv6.
        ("::ffff:8.8.8.8", AddressScope.PUBLIC),
        ("::ffff:127.0.0.1", AddressScope.LOOPBACK),
        ("::ffff:10.0.0.1", AddressScope.PRIVATE),
        ("::127.0.0.1", AddressScope.LOOPBACK),
        ("64:ff9b::8.8.8.8", AddressScope.PUBLIC),
        ("64:ff9b::169.254.169.254", AddressScope.LINK_LOCAL),
        ("64:ff9b::7f00:1", AddressScope.LOOPBACK),
        ("2002:7f00:1::", AddressScope.LOOPBACK),
        ("2002:a9fe:a9fe::1", AddressScope.LINK_LOCAL),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", AddressScope.LOOPBACK),
        ("2606:4700::5efe:127.0.0.1", AddressScope.LOOPBACK),
    ],
)
def test_how_internal_an_address_is(address: str, scope: AddressScope) -> None:
    assert scope_of(address) is scope


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("example.com", AddressScope.PUBLIC),
        ("8.8.8.8", AddressScope.PUBLIC),
        ("0x08080808", AddressScope.PUBLIC),
        ("1.2.3.4.5", AddressScope.PUBLIC),
        ("0x7g", AddressScope.PUBLIC),
        ("4294967296", AddressScope.PUBLIC),
        ("0900", AddressScope.PUBLIC),
        ("1password.com", AddressScope.PUBLIC),
        ("localhost", AddressScope.LOOPBACK),
        ("LocalHost.", AddressScope.LOOPBACK),
        ("a.localhost", AddressScope.LOOPBACK),
        ("127.1", AddressScope.LOOPBACK),
        ("2130706433", AddressScope.LOOPBACK),
        ("0x7f000001", AddressScope.LOOPBACK),
        ("0177.0.0.1", AddressScope.LOOPBACK),
        ("0", AddressScope.LOOPBACK),
        ("10.1", AddressScope.PRIVATE),
        ("169.254.43518", AddressScope.LINK_LOCAL),
        ("fd00::1", AddressScope.PRIVATE),
    ],
)
def test_what_a_hosts_name_tells_when_a_proxy_resolves_it(host: str, scope: AddressScope) -> None:
    assert scope_of_host(host) is scope


def test_of_several_addresses_only_those_that_are_not_too_internal_are_used() -> None:
    both = ["10.0.0.1", "8.8.8.8"]
    assert allowed("h", both, AddressScope.PUBLIC) == ["8.8.8.8"]
    assert allowed("h", both, AddressScope.PRIVATE) == both
    with pytest.raises(AddressRefused) as caught:
        allowed("h", ["127.0.0.1", "10.0.0.1"], AddressScope.PUBLIC)
    assert (caught.value.host, caught.value.address) == ("h", "127.0.0.1")
