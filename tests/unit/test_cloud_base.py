"""``OLLAMA_CLOUD_BASE_URL`` (registry-and-store.md 5.6 and the end of 10.10)."""

import pytest

from ollamad.cloud_base import DEFAULT, CloudBase, parse_cloud_base
from ollamad.settings import Settings


def test_nothing_means_the_default() -> None:
    assert parse_cloud_base("") == CloudBase("https://ollama.com:443", "ollama.com", False)


@pytest.mark.parametrize(
    ("text", "url", "signing_host"),
    [
        ("http://localhost:8080", "http://localhost:8080", "localhost"),
        ("http://localhost:8080/", "http://localhost:8080", "localhost"),
        ("https://LOCALHOST", "https://LOCALHOST", "localhost"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1"),
        ("http://127.8.9.10:1", "http://127.8.9.10:1", "127.8.9.10"),
        ("https://[::1]:65535", "https://[::1]:65535", "::1"),
    ],
)
def test_a_release_takes_this_machine(text: str, url: str, signing_host: str) -> None:
    assert parse_cloud_base(text) == CloudBase(url, signing_host, True)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com",
        "https://ollama.com",
        "https://ollama.com.evil.test:443",
        "https://localhost.evil.test",
        "http://10.0.0.1",
        "http://0.0.0.0:1",
        "localhost:8080",
        "//localhost:8080",
        "ftp://localhost",
        "http://",
        "http://:80",
        "http://me@localhost:8080",
        "http://me:secret@localhost:8080",
        "http://@localhost",
        "http://localhost:8080/v1",
        "http://localhost:8080//",
        "http://localhost:8080?",
        "http://localhost:8080?a=b",
        "http://localhost:8080#",
        "http://localhost:8080/#x",
        "http://localhost:99999",
        "http://localhost:0",
        "http://localhost:",
        "http://localhost:8o80",
        "http://localhost\\@evil.test",
        "http://local\thost",
        "http://localhost\r\nHost: evil",
        "http://[::1",
        "http://[::1%25eth0]",
    ],
)
def test_a_release_takes_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_cloud_base(text)
    assert "secret" not in str(caught.value)


def test_a_development_build_takes_other_hosts_by_https() -> None:
    found = parse_cloud_base("https://Example.com:8443", development=True)
    assert found == CloudBase("https://Example.com:8443", "example.com", True)
    with pytest.raises(ValueError, match="this machine"):
        parse_cloud_base("http://example.com", development=True)


def settings(text: str) -> Settings:
    return Settings.from_environ({"HOME": "/h", "OLLAMA_CLOUD_BASE_URL": text})


def test_a_bad_value_warns_and_means_the_default() -> None:
    given = settings("https://example.com")
    assert given.cloud_base == DEFAULT
    assert [tuple(w) for w in given.warnings] == [
        (
            "invalid environment variable, using default",
            "OLLAMA_CLOUD_BASE_URL",
            "https://example.com",
            "https://ollama.com:443",
        )
    ]


def test_a_good_value_is_in_force_and_shown() -> None:
    given = settings(' "http://127.0.0.1:4" ')
    assert given.warnings == ()
    assert given.cloud_base.url == "http://127.0.0.1:4"
    assert given.effective()["OLLAMA_CLOUD_BASE_URL"] == "http://127.0.0.1:4"


def test_a_password_in_it_does_not_get_into_the_log() -> None:
    given = settings("http://me:secret@localhost")
    assert "secret" not in repr(given.warnings) + repr(given.effective())
    assert given.warnings != ()
