"""The key pair made at the first start, registry-and-store.md 5.1."""

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from ollamad.registry import keys
from ollamad.registry.keys import ensure_key_pair


def test_first_start(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    said: list[str] = []
    path = tmp_path / ".ollama" / "id_ed25519"
    try:
        assert ensure_key_pair(path, said.append)
    finally:
        os.umask(umask)
    public = path.with_suffix(".pub")
    line = public.read_text()
    assert "".join(said) == (
        f"Couldn't find '{path}'. Generating new private key.\nYour new public key is: \n\n{line}\n"
    )
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path, public)]
    assert modes == [0o755, 0o600, 0o644]
    assert sorted(p.name for p in path.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]
    assert line.startswith("ssh-ed25519 AAAA")
    assert line.endswith("\n")
    assert line.count(" ") == 1, "a comment would change what clients sign with"


def test_the_private_key_is_an_unencrypted_openssh_one(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    ensure_key_pair(path, lambda _: None)
    private = path.read_bytes()
    key = load_ssh_private_key(private, password=None)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert path.with_suffix(".pub").read_bytes() == public + b"\n"
    lines = private.decode().splitlines()
    assert (lines[0], lines[-1]) == (
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "-----END OPENSSH PRIVATE KEY-----",
    )
    assert base64.b64decode("".join(lines[1:-1])).startswith(b"openssh-key-v1\0\0\0\0\x04none")


def test_a_private_key_is_left_alone_even_without_a_public_one(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    path.write_text("mine")
    said: list[str] = []
    assert not ensure_key_pair(path, said.append)
    assert said == []
    assert path.read_text() == "mine"
    assert not path.with_suffix(".pub").exists()


def test_a_key_that_cannot_be_looked_at_is_nobodys_problem_yet(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not ensure_key_pair(tmp_path / "file" / "id_ed25519", lambda _: None)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "missing" / "directory")
    with pytest.raises(OSError):
        ensure_key_pair(link / "id_ed25519", lambda _: None)


def test_of_two_daemons_that_start_at_once_one_makes_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "id_ed25519"
    mine = keys._new_key_pair()

    def meanwhile() -> tuple[bytes, bytes]:
        path.write_text("the other's")
        return mine

    monkeypatch.setattr(keys, "_new_key_pair", meanwhile)
    assert not ensure_key_pair(path, lambda _: None)
    assert [p.name for p in tmp_path.iterdir()] == ["id_ed25519"]
    assert path.read_text() == "the other's"
