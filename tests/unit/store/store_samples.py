"""Small models for the store's tests; the weights are stand-ins that nothing opens."""

from __future__ import annotations

import os
from pathlib import Path

from ollamad.store.config import ConfigBlob, encode_config
from ollamad.store.manifest import (
    MEDIA_CONFIG,
    MEDIA_MODEL,
    MEDIA_SYSTEM,
    MEDIA_TEMPLATE,
    Layer,
    Manifest,
)
from ollamad.store.names import Name
from ollamad.store.store import Store

HOUR_NS = 3600 * 1_000_000_000
WEIGHTS = b"x" * 250
CONFIG = encode_config(
    ConfigBlob(
        model_format="gguf",
        model_family="test",
        model_families=("test",),
        model_type="0",
        file_type="unknown",
        architecture="amd64",
        os="linux",
    )
)


def put(store: Store, media_type: str, content: bytes, **fields: str) -> Layer:
    """Store ``content``; the layer that names it."""
    with store.new_blob() as blob:
        blob.write(content)
        result = blob.commit()
    return Layer(media_type=media_type, digest=result.digest, size=result.size, **fields)


def small_manifest(store: Store, *, template: str = "", system: str = "") -> Manifest:
    layers = [put(store, MEDIA_MODEL, WEIGHTS)]
    if template:
        layers.append(put(store, MEDIA_TEMPLATE, template.encode()))
    if system:
        layers.append(put(store, MEDIA_SYSTEM, system.encode()))
    return Manifest(config=put(store, MEDIA_CONFIG, CONFIG), layers=tuple(layers))


def add_model(store: Store, name: str, *, template: str = "", system: str = "") -> Name:
    parsed = Name.parse(name)
    store.write_manifest(parsed, small_manifest(store, template=template, system=system))
    return parsed


def manifest_files(store: Store) -> list[str]:
    top = store.root / "manifests"
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())


def blob_files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "blobs").iterdir())


def write_raw_manifest(store: Store, relative: str, content: bytes) -> Path:
    path = store.root / "manifests" / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_aged(path: Path, age_ns: int, *, now_ns: int, content: bytes = b"old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(now_ns - age_ns, now_ns - age_ns))
    return path
