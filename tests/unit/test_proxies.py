"""Proxies of the environment, registry-and-store.md 6 and the end of 10.10."""

import pytest

from ollamad.proxies import BadProxy, Proxy, excepted, proxy_for

EXAMPLE = {"HTTP_PROXY": "127.0.0.1:3128", "NO_PROXY": ".skip.test,exact.test:81"}


@pytest.mark.parametrize(
    ("host", "port", "proxied"),
    [
        ("proxied.test", 80, True),
        ("skip.test", 80, True),
        ("exact.test", 80, True),
        ("a.skip.test", 80, False),
        ("exact.test", 81, False),
        ("localhost", 1, False),
        ("127.0.0.1", 5000, False),
    ],
)
def test_the_cases_of_the_contract(host: str, port: int, proxied: bool) -> None:
    proxy = proxy_for("http", host, port, EXAMPLE)
    assert proxy == (Proxy("http", "127.0.0.1", 3128) if proxied else None)


@pytest.mark.parametrize(
    ("scheme", "environ", "expected"),
    [
        ("https", {"HTTPS_PROXY": "http://p"}, Proxy("http", "p", 80)),
        ("https", {"https_proxy": "p"}, Proxy("http", "p", 80)),
        ("https", {"HTTPS_PROXY": "http://p", "https_proxy": "http://q"}, Proxy("http", "p", 80)),
        ("https", {"HTTPS_PROXY": "", "https_proxy": "http://q"}, Proxy("http", "q", 80)),
        ("https", {"HTTP_PROXY": "http://p", "ALL_PROXY": "http://q"}, None),
        ("http", {"HTTPS_PROXY": "http://p"}, None),
        ("http", {"HTTP_PROXY": "https://p"}, Proxy("https", "p", 443)),
        ("http", {"HTTP_PROXY": "SOCKS5://p"}, Proxy("socks5", "p", 1080)),
        ("http", {"HTTP_PROXY": "socks5h://p:9"}, Proxy("socks5h", "p", 9)),
        ("http", {"HTTP_PROXY": "http://[::1]:3128"}, Proxy("http", "::1", 3128)),
        ("http", {"HTTP_PROXY": "u:p%40s@h:1"}, Proxy("http", "h", 1, "u", "p@s")),
        ("http", {"HTTP_PROXY": "u@h:1"}, Proxy("http", "h", 1, "u")),
    ],
)
def test_which_proxy(scheme: str, environ: dict[str, str], expected: Proxy | None) -> None:
    assert proxy_for(scheme, "r.test", 443, environ) == expected


@pytest.mark.parametrize(
    ("host", "port", "listed", "covered"),
    [
        ("a.test", 80, "*", True),
        ("a.test", 80, " b.test , a.test ", True),
        ("sub.a.test", 80, "a.test", True),
        ("sub.a.test", 80, "*.a.test", True),
        ("a.test", 80, "*.a.test", False),
        ("nota.test", 80, "a.test", False),
        ("A.Test.", 80, "a.tEST", True),
        ("a.test", 80, "", False),
        ("a.test", 80, ",,", False),
        ("a.test", 80, ":80", False),
        ("10.1.2.3", 80, "10.0.0.0/8", True),
        ("11.1.2.3", 80, "10.0.0.0/8", False),
        ("10.1.2.3", 80, "10.1.2.3", True),
        ("10.1.2.3", 80, "10.1.2.3:80", True),
        ("10.1.2.3", 80, "10.1.2.3:81", False),
        ("10.1.2.3", 80, ".2.3", False),
        ("fd00::1", 80, "fd00::/8", True),
        ("fd00::1", 80, "fd00:0::1", True),
        ("fd00::1", 80, "[fd00::1]", True),
        ("fd00::1", 80, "[fd00::1]:80", True),
        ("fd00::1", 80, "[fd00::1]:81", False),
        ("::ffff:10.1.2.3", 80, "10.0.0.0/8", True),
        ("a.test", 80, "10.0.0.0/8", False),
        ("a.test", 80, "10.0.0.0/99", False),
    ],
)
def test_what_no_proxy_covers(host: str, port: int, listed: str, covered: bool) -> None:
    assert excepted(host, port, listed) == covered


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.8.8.8", "::1", "0.0.0.0", "::"])
def test_this_machine_is_never_reached_through_a_proxy(host: str) -> None:
    assert proxy_for("http", host, 80, {"HTTP_PROXY": "http://p"}) is None


@pytest.mark.parametrize(
    "text",
    ["ftp://u:secret@p", "http://", "http://u:secret@p:99999", "http://p:0", "http://[u:secret@p"],
)
def test_what_is_no_proxy_is_told_without_its_password(text: str) -> None:
    with pytest.raises(BadProxy, match="HTTP_PROXY") as caught:
        proxy_for("http", "r.test", 80, {"HTTP_PROXY": text})
    assert "secret" not in caught.value.message


def test_a_password_is_not_in_a_proxys_text() -> None:
    proxy = proxy_for("http", "r.test", 80, {"HTTP_PROXY": "u:secret@p"})
    assert proxy is not None
    assert proxy.password == "secret"
    assert "secret" not in repr(proxy)
