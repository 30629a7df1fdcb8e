"""The key pair made at the first start, registry-and-store.md 5.1."""

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from ollamad.registry import keys
from ollamad.registry.keys import KeyUnavailable, ensure_key_pair, load_key


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
    assert modes == [0o700, 0o600, 0o644]
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


#: registry-and-store 9.1: the seed is 00 01 02 … 1f.
EXAMPLE = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZWQyNTUx
OQAAACADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuAAAAIh6+LxIevi8SAAAAAtzc2gt
ZWQyNTUxOQAAACADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuAAAAEAAAQIDBAUGBwgJ
CgsMDQ4PEBESExQVFhcYGRobHB0eHwOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4AAAA
AAECAwQF
-----END OPENSSH PRIVATE KEY-----
"""
PUB = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "id_ed25519"
    path.write_text(EXAMPLE)
    path.chmod(0o600)
    return path


def test_the_key_of_the_worked_example(private: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = load_key(private)
    assert key.public_line == f"ssh-ed25519 {PUB}"
    assert key.authorization(b"POST,/api/me?ts=1760000000") == (
        f"{PUB}:7e2fmkXxukXDm5MOm0uMjHGcNQE1iRZK30oqVYcr54ATqlD5E4WAr5lb72U3IduFQooviRGCDxOa4oAWyVF3"
        "CA=="
    )
    assert not private.with_suffix(".pub").exists(), "the public file is neither read nor written"
    assert caplog.text == ""


def test_a_key_in_the_other_form(private: Path) -> None:
    key = load_ssh_private_key(EXAMPLE.encode(), None)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert load_key(private).public_line == f"ssh-ed25519 {PUB}"


def test_a_missing_key_is_the_systems_error(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    with pytest.raises(KeyUnavailable) as caught:
        load_key(path)
    assert caught.value.message == f"open {path}: no such file or directory"


def _encrypted(text: str) -> bytes:
    key = load_ssh_private_key(text.encode(), None)
    protection = BestAvailableEncryption(b"password")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def _of_another_kind() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        EXAMPLE.encode()[:200],
        _encrypted(EXAMPLE),
        _of_another_kind(),
    ],
    ids=["empty", "no key", "half a key", "encrypted", "another kind"],
)
def test_keys_that_cannot_sign(private: Path, content: bytes) -> None:
    private.write_bytes(content)
    with pytest.raises(KeyUnavailable, match=f"^cannot use the key {private}: "):
        load_key(private)


def test_another_key_is_used_at_once(private: Path) -> None:
    first = load_key(private).public_line
    private.unlink()
    ensure_key_pair(private, lambda _: None)
    assert load_key(private).public_line != first


def test_a_key_that_others_can_read_is_told_once(
    private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private.chmod(0o644)
    for _ in range(2):
        load_key(private)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(private) in record.getMessage()


def test_a_key_shows_nothing_of_itself(private: Path) -> None:
    assert repr(load_key(private)) == f"SigningKey(public_line='ssh-ed25519 {PUB}')"
