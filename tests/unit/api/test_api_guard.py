"""Origins and hosts by the tables of http-api.md 2, C2 and C11."""

import pytest

from ollamad.api.guard import Guard, Origins
from ollamad.environment import BUILT_IN_ORIGINS
from ollamad.errors import UsageError


def origins(*entries: str) -> Origins:
    return Origins((*entries, *BUILT_IN_ORIGINS))


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:3000",
        "http://localhost:",
        "https://127.0.0.1",
        "https://0.0.0.0:8",
        "vscode-webview://abc",
        "vscode-file://x",
        "app://x",
        "tauri://localhost",
        "file://",
    ],
)
def test_allowed_by_default(origin: str) -> None:
    assert origins().allows(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "chrome-extension://abc",
        "http://LOCALHOST",
        "HTTP://localhost",
        "http://localhost.evil",
        "http://127.0.0.1.evil",
        "",
    ],
)
def test_refused_by_default(origin: str) -> None:
    assert not origins().allows(origin)


@pytest.mark.parametrize(
    ("entry", "origin", "allowed"),
    [
        ("chrome-extension://*", "chrome-extension://abc", True),
        ("*", "null", True),
        ("https://A.example", "https://a.example", True),
        ("https://A.example", "https://A.example", False),
        ("*.example", "https://x.example", True),
        ("*.example", "https://example", False),
        ("https://*.example", "https://x.example", True),
        ("https://*.example", "http://x.example", False),
        ("http://aba*aba", "http://aba", False),  # the star needs both halves
        (" http://a*", "http://ab", False),  # wildcards are not trimmed
    ],
)
def test_entries(entry: str, origin: str, allowed: bool) -> None:
    assert origins(entry).allows(origin) is allowed


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (
            "example.com",
            "bad origin: origins must contain '*' or include http://,https://,"
            "chrome-extension://,safari-extension://,moz-extension://,ms-browser-extension://",
        ),
        (" https://a.example", "bad origin: "),
        ("", "bad origin: "),
        ("http://*.*", "only one * is allowed"),
    ],
)
def test_bad_entries(entry: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"^{text.replace('*', chr(92) + '*')}"):
        origins(entry)


def guard(*, checks_host: bool = True) -> Guard:
    return Guard(
        origins(),
        checks_host=checks_host,
        hostname="Box",
        own_addresses=lambda: ["100.64.0.7", "fe80::7%eth0"],
    )


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LOCALHOST:1",
        "localhost:abc",
        "x.local",
        "x.internal",
        "a.localhost",
        "box:11434",
        "192.168.1.9",
        "10.0.0.1:99",
        "172.16.0.1",
        "127.0.0.2",
        "[::1]:11434",
        "::1",
        "[fd00::1]:1",
        "0.0.0.0:11434",
        "[::]:1",
        "[::ffff:127.0.0.1]:1",
        "100.64.0.7:1",
        "[fe80::7]:1",
    ],
)
def test_hosts_that_pass(host: str) -> None:
    assert guard().judge("GET", host, None).status is None


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "[::1]",
        "localhost.",
        "169.254.1.1",
        "a:b:c",
        "8.8.8.8",
        "172.32.0.1",
        "100.64.0.1",
        "[fe80::1]:1",
        "[::ffff:8.8.8.8]:1",
        "notlocal",
        "evillocalhost",
        "2130706433",
    ],
)
def test_hosts_that_do_not(host: str) -> None:
    assert guard().judge("GET", host, None).status == 403
    assert guard(checks_host=False).judge("GET", host, None).status is None


def test_same_origin_passes_without_headers() -> None:
    for scheme in ("http", "https"):
        verdict = guard().judge("GET", "box:11434", f"{scheme}://box:11434")
        assert verdict == (None, ())


def test_a_rebound_name_is_refused_though_its_origin_is_its_own() -> None:
    assert guard().judge("POST", "evil.example", "http://evil.example").status == 403


def test_options() -> None:
    assert guard().judge("OPTIONS", "localhost:1", None).status == 204
    assert guard().judge("OPTIONS", "127.0.0.1:1", None).status is None
    assert guard().judge("OPTIONS", "evil.example", "http://localhost").status == 204
