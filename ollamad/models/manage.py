"""Copy and delete (http-api.md 13.1 and 13.2). Blocks on the disk; the API runs it in threads."""

from __future__ import annotations

from pathlib import Path

from ollamad.errors import BadRequest, NotFound, model_not_found, quoted
from ollamad.models.weights import read_weights
from ollamad.scheduler.spec import model_key
from ollamad.store.errors import ManifestError
from ollamad.store.manifest import MEDIA_MODEL
from ollamad.store.names import Name, parse_reference
from ollamad.store.store import Store


def copy(store: Store, source: str, destination: str) -> None:
    """Give the model ``source`` another name. Raises BadRequest and NotFound with their texts."""
    from_name, to_name = Name.parse(source), Name.parse(destination)
    for what, text, name in (("source", source, from_name), ("destination", destination, to_name)):
        if not name.is_valid:
            raise BadRequest(f"{what} {quoted(text)} is invalid")
    from_name, to_name = store.resolve(from_name), store.resolve(to_name)
    if from_name == to_name:
        return
    try:
        store.copy(from_name, to_name)
    except FileNotFoundError as error:
        raise NotFound(f"model {quoted(source)} not found") from error


def delete(store: Store, requested: str) -> str | None:
    """Remove a model and the blobs that no other model uses.

    Returns the key of its weights among loaded models when they are gone now, so that the daemon
    can unload them. Raises BadRequest, NotFound, ManifestError.
    """
    name = Name.parse(parse_reference(requested).stored_text)
    if not name.is_valid:
        raise BadRequest(f"name {quoted(requested)} is invalid")
    name = store.resolve(name)
    weights = _weights(store, name)
    try:
        store.delete(name)
    except FileNotFoundError as error:
        raise model_not_found(requested) from error
    gone = any(not path.exists() for path in weights)
    return model_key(weights) if gone else None


def _weights(store: Store, name: Name) -> tuple[Path, ...]:
    try:
        layers = store.read_manifest(name).manifest.layers_of(MEDIA_MODEL)
        return read_weights([store.blob_path(layer.digest) for layer in layers], name.short).paths
    except (FileNotFoundError, BadRequest, ManifestError):
        return ()  # the deletion itself tells what is missing or wrong
