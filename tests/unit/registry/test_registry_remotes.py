"""Which hosts a stub may lead to (http-api.md 17.3.2, case 185)."""

import pytest

from ollamad.errors import BadRequest
from ollamad.registry.remotes import RemoteHost, remote_host


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://ollama.com:443", RemoteHost("https://ollama.com:443", "ollama.com", True)),
        ("https://ollama.com", RemoteHost("https://ollama.com", "ollama.com", True)),
        ("https://Ollama.com/", RemoteHost("https://Ollama.com", "ollama.com", True)),
        # A signature in the clear could be used by whoever listens.
        ("http://ollama.com:80", RemoteHost("http://ollama.com:80", "ollama.com", False)),
        ("http://box:11434", RemoteHost("http://box:11434", "box", False)),
        ("http://BOX/pre/fix/", RemoteHost("http://BOX/pre/fix", "box", False)),
        ("http://[::1]:11434", RemoteHost("http://[::1]:11434", "::1", False)),
    ],
)
def test_where_a_stub_leads(text: str, found: RemoteHost) -> None:
    assert remote_host(text, ("ollama.com", "Box", "::1")) == found


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com",
        "https://ollama.com.evil.test",
        "https://evil.test/ollama.com",
        "https://ollama.com@evil.test",
        "https://evil.test#@ollama.com",
        "https://evil.test\\@ollama.com",
        "https://ollama.com\\@evil.test",
        "https://a:b@ollama.com",
        "https://ollama.com:443/api/delete?x=",
        "https://ollama.com/#",
        "https://ollama.com:99999",
        "https://sub.ollama.com",
        "https://ollama.com.",
        "ftp://ollama.com",
        "ollama.com",
        "//ollama.com",
        "https://",
        "https:ollama.com",
        "https://ollama.com\r\nX: y",
        "https://\u043ellama.com",
        "",
    ],
)
def test_where_none_may_lead(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^this server cannot run this remote model$"):
        remote_host(text, ("ollama.com",))


def test_a_host_must_be_listed() -> None:
    for allowed in ((), ("",), (" ollama.com",), ("com",), ("ollama.com:443",)):
        with pytest.raises(BadRequest):
            remote_host("https://ollama.com:443", allowed)
