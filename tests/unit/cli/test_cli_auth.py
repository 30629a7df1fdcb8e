"""Requests that are signed (registry-and-store 5.5, 9.1, 10.10)."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from scripted_server import Answer, Cli, Request, Script, ok, stream

from ollamad.cli.auth import is_signed, signed
from ollamad.host import parse_host
from ollamad.registry.keys import load_key

PUBLIC = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the key of the contract's examples, and without its public half."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    path = tmp_path / ".ollama" / "id_ed25519"
    path.parent.mkdir()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return tmp_path


@pytest.mark.parametrize(
    ("method", "path", "ts", "signature"),
    [
        (
            "HEAD",
            "/",
            1795247983,
            "DxirjobZpQ2FcxbUMAYlSoqoO3srXAT+vy571ZCdHjFg4l3a8UuMIC2Jxkddhy/oeFc536O6rrKCqB08pQ4tAg==",
        ),
        (
            "GET",
            "/api/tags",
            1795247983,
            "iaFt9pdrvalnKsToGJZqmhFwaF/JDiF/hS8K/I9eN5mngThGMqravWBO6GlnqA6pBDMTYGJ+PJ+D0STDJ9FhBA==",
        ),
        (
            "POST",
            "/api/me",
            1760000000,
            "7e2fmkXxukXDm5MOm0uMjHGcNQE1iRZK30oqVYcr54ATqlD5E4WAr5lb72U3IduFQooviRGCDxOa4oAWyVF3CA==",
        ),
        (
            "POST",
            "/api/chat",
            1760000000,
            "eHWxnYj3IZlgN6KIAF/QbeuVRW6lG0Ayi9ZY3qljNJ6WIgwVsHLxlqZGM1bPdP19ISJTCI4LL7nB3ze3Jn3YDA==",
        ),
    ],
)
def test_signatures_of_the_contract(
    home: Path, method: str, path: str, ts: int, signature: str
) -> None:
    key = load_key(home / ".ollama" / "id_ed25519")
    target, authorization = signed(method, path, key, ts)
    assert target == f"{path}?ts={ts}"
    assert authorization == f"{PUBLIC}:{signature}"


def test_a_query_is_kept_and_not_signed(home: Path) -> None:
    key = load_key(home / ".ollama" / "id_ed25519")
    target, authorization = signed("GET", "/api/tags?a=1", key, 1795247983)
    assert target == "/api/tags?a=1&ts=1795247983"
    assert authorization == signed("GET", "/api/tags", key, 1795247983).authorization


@pytest.mark.parametrize(
    ("host", "auth", "expected"),
    [
        ("", "", False),
        ("", "1", True),
        ("", "true", True),
        ("", ' "yes" ', True),
        ("", "0", False),
        ("", "false", False),
        ("ollama.com", "", True),
        ("https://ollama.com", "", True),
        ("ollama.com:8080", "", True),
        ("https://ollama.com.example.com", "", False),
        ("x.ollama.com", "", False),
        ("http://h:1/ollama.com", "", False),
    ],
)
def test_who_gets_signatures(host: str, auth: str, expected: bool) -> None:
    assert is_signed(parse_host(host), {"OLLAMA_AUTH": auth} if auth else {}) is expected


def verified(request: Request, prefix: str = "") -> str:
    """The path that ``request`` signs; fails for a wrong signature or time."""
    path, _, ts = request.path.partition("?ts=")
    assert re.fullmatch(r"[0-9]{10}", ts)
    path = path.removeprefix(prefix)
    public, _, signature = request.headers["authorization"].partition(":")
    assert public == PUBLIC
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public)[-32:])
    message = f"{request.method},{path}?ts={ts}".encode()
    key.verify(base64.b64decode(signature), message)
    return f"{request.method} {path}"


@pytest.mark.parametrize("prefix", ["", "/pre/fix"])
def test_every_request_is_signed(cli: Cli, server: Script, home: Path, prefix: str) -> None:
    server.on(f"GET {prefix}/api/tags", ok({"models": []}))
    environ = {"OLLAMA_HOST": server.url + prefix, "OLLAMA_AUTH": "1", "HOME": str(home)}
    assert cli("list", environ=environ).status == 0
    assert [verified(r, prefix) for r in server.requests] == ["HEAD /", "GET /api/tags"]
    # No public half is made of the private one.
    assert [p.name for p in (home / ".ollama").iterdir()] == ["id_ed25519"]


def test_streams_and_uploads_are_signed(
    cli: Cli, server: Script, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "Modelfile").write_text("FROM ./m.gguf\n")
    server.on("POST /api/create", stream({"status": "success"}))
    environ = {"OLLAMA_HOST": server.url, "OLLAMA_AUTH": "1", "HOME": str(home)}
    monkeypatch.setattr(server, "answer", _any_upload(server.answer))
    assert cli("create", "m", environ=environ).status == 0
    signed_paths = [verified(r) for r in server.requests]
    assert [p.partition("sha256:")[0] for p in signed_paths] == [
        "HEAD /",
        "POST /api/blobs/",
        "POST /api/create",
    ]


def _any_upload(answer: object) -> object:
    """``answer``, but every blob is welcome."""
    assert callable(answer)

    def wrapped(request: Request) -> Answer:
        found = answer(request)
        return Answer(b"", 201) if "/api/blobs/" in request.path else found

    return wrapped


def test_nothing_is_signed_unless_it_is_asked_for(cli: Cli, server: Script, home: Path) -> None:
    server.on("GET /api/tags", ok({"models": []}))
    cli("list", environ={"OLLAMA_HOST": server.url, "OLLAMA_AUTH": "0", "HOME": str(home)})
    assert [r.path for r in server.requests] == ["/", "/api/tags"]
    assert not any("authorization" in r.headers for r in server.requests)


def test_without_a_key_nothing_is_sent(cli: Cli, server: Script, tmp_path: Path) -> None:
    environ = {"OLLAMA_HOST": server.url, "OLLAMA_AUTH": "1", "HOME": str(tmp_path)}
    path = tmp_path / ".ollama" / "id_ed25519"
    message = f"Error: open {path}: no such file or directory\n"
    assert cli("list", environ=environ) == (1, "", message)
    assert server.requests == []


def test_a_key_of_another_kind_is_an_error(cli: Cli, server: Script, home: Path) -> None:
    (home / ".ollama" / "id_ed25519").write_text("no key")
    environ = {"OLLAMA_HOST": server.url, "OLLAMA_AUTH": "1", "HOME": str(home)}
    result = cli("list", environ=environ)
    assert result.status == 1
    assert result.err.startswith("Error: cannot use the key ")
    assert server.requests == []
