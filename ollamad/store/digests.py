"""Digests: their syntax and the blob file names made of them (registry-and-store 2.2). Pure."""

from __future__ import annotations

import re

from ollamad.errors import BadRequest

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is ``sha256``, ``:`` or ``-``, and exactly 64 hex digits of either case."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: str) -> None:
    """Raise BadRequest ``invalid digest format`` unless ``text`` is a digest."""
    if not is_digest(text):
        raise BadRequest("invalid digest format")


def blob_filename(digest: str) -> str:
    """The file name of the blob: the digest with ``-``, the case of its hex digits kept.

    Raises BadRequest ``invalid digest format``; so no other text ever becomes a path.
    """
    check_digest(digest)
    return digest.replace(":", "-")


def digest_of_filename(filename: str) -> str | None:
    """The digest whose blob has this file name; none for temporary and foreign files."""
    return filename.replace("-", ":", 1) if is_digest(filename) else None


def from_hex(hexdigest: str) -> str:
    """The canonical digest for 64 lower-case hex digits."""
    return "sha256:" + hexdigest
