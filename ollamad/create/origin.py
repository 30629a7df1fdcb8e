"""Where the weights of a new model come from (http-api 14.3, modelfile-and-create 4.2). Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ollamad.errors import BadRequest
from ollamad.store.names import Name, Reference, parse_reference
from ollamad.wire import CreateRequest

CLOUD_HOST = "https://ollama.com:443"

_DEFAULT_PORT = 11434

_HOST = re.compile(r"[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True, slots=True)
class StoredBase:
    """``from`` names a model of this store, or one to pull. ``name`` is as typed, with defaults."""

    name: Name


@dataclass(frozen=True, slots=True)
class RemoteBase:
    """``from`` names a model that another server runs: the new model is a stub without weights."""

    host: str
    model: str


@dataclass(frozen=True, slots=True)
class Files:
    """Uploaded files by name; the values are digests."""

    digests: dict[str, str]


Origin = StoredBase | RemoteBase | Files


def origin_of(request: CreateRequest) -> Origin:
    """``from`` beats ``files``, whose digests are then not even looked at.

    Raises BadRequest ``invalid model name``, ``bad remote``, or ``neither 'from' or 'files' was
    specified``.
    """
    if request.from_:
        reference = _reference(request.from_)
        if request.remote_host:
            return RemoteBase(normal_remote_host(request.remote_host), reference.base)
        if reference.source == "cloud":
            return RemoteBase(CLOUD_HOST, reference.base)
        return StoredBase(Name.parse(reference.base))
    if request.files is None:
        raise BadRequest("neither 'from' or 'files' was specified")
    return Files(request.files)


def _reference(text: str) -> Reference:
    try:
        reference = parse_reference(text)
    except BadRequest:
        raise BadRequest("invalid model name") from None
    if not Name.parse(reference.base).is_valid:
        raise BadRequest("invalid model name")
    return reference


def normal_remote_host(text: str) -> str:
    """``remote_host`` as the URL that is stored: with scheme and port, without a final slash.

    Raises BadRequest ``bad remote``. A URL with a user name, query or fragment is refused: the
    config is shown to every client.
    """
    if text.startswith("/"):
        return f"http://localhost:{_DEFAULT_PORT}{_clean(text)}"
    url = text if "://" in text else f"http://{text}"
    if url == "http://ollama.com":
        return CLOUD_HOST
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest("bad remote") from None
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.rstrip(":")
    host = host or "localhost"
    extras = "@" in parts.netloc or parts.query or parts.fragment
    # ``urlsplit`` silently drops line breaks and tabs.
    if extras or not url.isprintable() or not _HOST.fullmatch(host):
        raise BadRequest("bad remote")
    return f"{parts.scheme}://{host}:{port or _DEFAULT_PORT}{_clean(parts.path)}"


def _clean(path: str) -> str:
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return "" if cleaned == "/" else cleaned
