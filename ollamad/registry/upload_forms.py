"""The texts of a push: URLs, headers' values, the manifest's bytes. Pure (registry-and-store 4).

URLs are ``str`` as they go over the wire; only those that are edited here are ever re-encoded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote_plus

from ollamad.errors import OllamadError
from ollamad.store.digests import check_digest
from ollamad.store.errors import ManifestError
from ollamad.store.json_text import Fields, decode_first
from ollamad.store.manifest import Layer, Manifest, StoredManifest, encode_manifest
from ollamad.store.names import Name
from ollamad.wire import Progress

_SECONDS = re.compile(r"[0-9]{1,9}")


def etag(md5s: Sequence[bytes]) -> str:
    """The S3 multipart ETag of parts whose binary MD5 digests these are (4.5)."""
    joined = hashlib.md5(b"".join(md5s), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(md5s)}"


def with_query(url: str, *added: tuple[str, str]) -> str:
    """``url`` with parameters added to its query, sorted by key and form-encoded (4.5).

    Values that were there keep their bytes.
    """
    base, _, _ = url.partition("#")
    base, _, query = base.partition("?")
    # One byte a character, so that bytes which are not UTF-8 come out as they went in.
    old = parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    pairs = [
        (key.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for key, value in old
    ]
    pairs += [(key.encode(), value.encode()) for key, value in added]
    pairs.sort(key=lambda pair: pair[0])
    return f"{base}?" + "&".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in pairs)


def opening_url(base: str, layer: Layer) -> str:
    """Where to ask for a session: ``base`` ends in ``blobs/uploads/``. A layer of another model
    asks to be mounted from there (4.3)."""
    origin = Name.parse(layer.from_)
    if not layer.from_ or not origin.is_valid:
        return base
    return with_query(base, ("from", origin.repository), ("mount", layer.digest))


def commit_url(session: str, digest: str, parts_etag: str | None = None) -> str:
    """The session URL with what ends the session (4.5, 4.7)."""
    tag = () if parts_etag is None else (("etag", parts_etag),)
    return with_query(session, ("digest", digest), *tag)


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; None for a date or anything else."""
    return float(value) if value is not None and _SECONDS.fullmatch(value.strip()) else None


def pushed_blobs(manifest: Manifest, name: Name) -> list[Layer]:
    """What a push sends, in order: the layers, then the config if it has a digest (4.1.4).

    Raises ManifestError for a layer whose digest is none.
    """
    blobs = [*manifest.layers]
    if manifest.config.digest:
        blobs.append(manifest.config)
    for blob in blobs:
        if not blob.digest:
            raise ManifestError(f"{name.repository}: digest is empty")
        try:
            check_digest(blob.digest)
        except OllamadError as error:
            raise ManifestError(error.message) from error
    return blobs


def manifest_body(stored: StoredManifest) -> bytes:
    """The manifest as the reference sends it: read and written anew, no final newline (4.1.6)."""
    body = encode_manifest(stored.manifest)[:-1]
    if not stored.manifest.layers:
        # The reference tells an empty list from none.
        listed = Fields(decode_first(stored.raw), "manifest.Manifest").array("layers")
        if listed is not None:
            body = body.removesuffix(b'"layers":null}') + b'"layers":[]}'
    return body


def progress(digest: str, total: int, completed: int) -> Progress:
    """One line about a blob (4.6)."""
    return Progress(
        status=f"pushing {digest[7:19]}", digest=digest, total=total, completed=completed
    )
