"""Manifests and layers: their JSON, exact when written and lenient when read (2.3, 2.5). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from ollamad.store.digests import is_digest
from ollamad.store.errors import ManifestError
from ollamad.store.json_text import Fields, decode_first, encode

MEDIA_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_CONFIG = "application/vnd.docker.container.image.v1+json"
MEDIA_MODEL = "application/vnd.ollama.image.model"
MEDIA_PROJECTOR = "application/vnd.ollama.image.projector"
MEDIA_ADAPTER = "application/vnd.ollama.image.adapter"
MEDIA_DRAFT = "application/vnd.ollama.image.draft"
MEDIA_TEMPLATE = "application/vnd.ollama.image.template"
MEDIA_PROMPT = "application/vnd.ollama.image.prompt"
MEDIA_SYSTEM = "application/vnd.ollama.image.system"
MEDIA_PARAMS = "application/vnd.ollama.image.params"
MEDIA_MESSAGES = "application/vnd.ollama.image.messages"
MEDIA_LICENSE = "application/vnd.ollama.image.license"
MEDIA_EMBED = "application/vnd.ollama.image.embed"
MEDIA_TENSOR = "application/vnd.ollama.image.tensor"
MEDIA_JSON = "application/vnd.ollama.image.json"


class Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One blob of a model. ``size``: bytes; ``from_``: its origin, a model or a file name."""

    media_type: str = msgspec.field(name="mediaType")
    digest: str
    size: int
    from_: str = msgspec.field(default="", name="from")
    name: str = ""


NO_CONFIG = Layer(media_type="", digest="", size=0)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A model: its config and its layers in order. An empty config digest means no config."""

    schema_version: int = msgspec.field(default=2, name="schemaVersion")
    media_type: str = msgspec.field(default=MEDIA_MANIFEST, name="mediaType")
    config: Layer = NO_CONFIG
    layers: tuple[Layer, ...] = ()

    @property
    def size(self) -> int:
        """Bytes as stated, config included and duplicates counted each time (2.6)."""
        return self.config.size + sum(layer.size for layer in self.layers)

    def references(self) -> Iterator[str]:
        """The digests of all layers and of the config, as written, without empty ones."""
        for layer in self.layers:
            if layer.digest:
                yield layer.digest
        if self.config.digest:
            yield self.config.digest

    def layers_of(self, media_type: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.media_type == media_type]


@dataclass(frozen=True, slots=True, eq=False)
class StoredManifest:
    """A manifest file as it was read.

    ``digest``: 64 hex digits over the whole file; ``size``: stated bytes of all layers and config;
    ``modified_at_ns``: the file's modification time since the epoch.
    """

    manifest: Manifest
    digest: str
    size: int
    modified_at_ns: int
    raw: bytes


def stored_manifest(raw: bytes, modified_at_ns: int) -> StoredManifest:
    """The record for a manifest file's bytes. Raises ManifestError."""
    manifest = parse_manifest(raw)
    return StoredManifest(
        manifest=manifest,
        digest=hashlib.sha256(raw).hexdigest(),
        size=manifest.size,
        modified_at_ns=modified_at_ns,
        raw=raw,
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """The file of a locally made manifest: compact, reference escapes, one final newline."""
    fields: dict[str, Any] = msgspec.to_builtins(manifest)
    if not manifest.layers:
        fields["layers"] = None  # the reference's empty list
    return encode(fields) + b"\n"


def parse_manifest(raw: bytes) -> Manifest:
    """Read the first JSON value of a manifest file. Raises ManifestError (500)."""
    fields = Fields(decode_first(raw), "manifest.Manifest")
    return Manifest(
        schema_version=fields.integer("schemaVersion"),
        media_type=fields.text("mediaType"),
        config=_layer(fields.get("config")),
        layers=tuple(_layer(layer) for layer in fields.array("layers") or ()),
    )


def _layer(value: Any) -> Layer:
    fields = Fields(value, "manifest.Layer")
    return Layer(
        media_type=fields.text("mediaType"),
        digest=fields.text("digest"),
        size=fields.integer("size"),
        from_=fields.text("from"),
        name=fields.text("name"),
    )


def check_digests(manifest: Manifest) -> None:
    """Raise ManifestError ``invalid digest format`` if a layer names no possible blob."""
    for digest in manifest.references():
        if not is_digest(digest):
            raise ManifestError("invalid digest format")
