"""The daemon's key pair, with which requests to registries are signed.

``registry-and-store.md`` 5.1: the same files as the reference, made at the first start.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ollamad.errors import OllamadError
from ollamad.store.errors import os_error_text

logger = logging.getLogger(__name__)

_LARGEST_KEY = 64 * 1024


def ensure_key_pair(path: Path, announce: Callable[[str], object]) -> bool:
    """Make the private key ``path`` and ``path``.pub unless the private key exists.

    ``announce`` gets the lines for the user, each with its newline. Returns whether keys were made.
    Raises OSError when they cannot be written. A private key without a public one is left alone;
    a daemon that starts at the same time never sees half a key or another's.
    """
    try:
        path.stat()
        return False
    except FileNotFoundError:
        pass
    except OSError:
        # Whatever hides the key will tell those who need it; serving needs none.
        return False
    announce(f"Couldn't find '{path}'. Generating new private key.\n")
    private, public = _new_key_pair()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _install(path, private):
        return False
    _write_public(path.with_name(path.name + ".pub"), public)
    announce(f"Your new public key is: \n\n{public.decode()}\n")
    return True


def _new_key_pair() -> tuple[bytes, bytes]:
    """An unencrypted OpenSSH private key, and the public line with its newline, no comment."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - first start
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private, public + b"\n"


def _install(path: Path, private: bytes) -> bool:
    """Put the key in place whole, mode 0600; False if another daemon was quicker."""
    descriptor, name = tempfile.mkstemp(prefix=".id_ed25519-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(private)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, does not replace a key that has appeared meanwhile.
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return True


def _write_public(path: Path, public: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "wb") as file:
        file.write(public)


class KeyUnavailable(OllamadError):
    """The private key cannot be read or used; only what needs a signature fails."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The daemon's key. ``public_line`` is ``ssh-ed25519 AAAA…``, without comment and newline."""

    public_line: str
    _sign: Callable[[bytes], bytes] = field(repr=False)

    def authorization(self, message: bytes) -> str:
        """``PUB:SIG``, the whole value of ``Authorization`` (5.2)."""
        signature = base64.b64encode(self._sign(message)).decode()
        return f"{self.public_line.split(' ')[1]}:{signature}"


def load_key(path: Path) -> SigningKey:
    """Read the private key; for every signature anew, so that another one needs no restart.

    Blocking. Raises KeyUnavailable with the operating system's text, or what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            private = file.read(_LARGEST_KEY)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise KeyUnavailable(os_error_text("open", error)) from error
    if mode & 0o077 and os.name == "posix":
        _warn_once(path)
    return _parsed(path, private)


def _parsed(path: Path, private: bytes) -> SigningKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - takes long
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_private_key,
        load_ssh_private_key,
    )

    openssh = b"BEGIN OPENSSH" in private
    try:
        key = (load_ssh_private_key if openssh else load_pem_private_key)(private, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # Nothing of the key itself is in these texts.
        raise KeyUnavailable(f"cannot use the key {path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnavailable(f"cannot use the key {path}: it is not an Ed25519 key")
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return SigningKey(public.decode(), key.sign)


_warned: set[Path] = set()


def _warn_once(path: Path) -> None:
    if path not in _warned:
        _warned.add(path)
        logger.warning("others can read the private key; it should have mode 0600: %s", path)
