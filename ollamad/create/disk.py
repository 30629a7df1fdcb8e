"""What create does in the store, step by step. Every method blocks: call them in worker threads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ollamad.create.layers import (
    GGUF_LAYERS,
    ImportedFile,
    PlannedLayer,
    Role,
    imported_file,
    inherited_layer,
)
from ollamad.create.weights import (
    read_head,
    stored_weights,
    uploaded_weights,
    validate_file,
    weights_of_facts,
)
from ollamad.errors import BadRequest, OllamadError
from ollamad.models.weights import read_weights
from ollamad.store.blobs import BlobResult
from ollamad.store.config import EMPTY_CONFIG, ConfigBlob, encode_config
from ollamad.store.digests import check_digest, is_digest
from ollamad.store.errors import ManifestError, os_error_text
from ollamad.store.manifest import (
    MEDIA_CONFIG,
    MEDIA_MODEL,
    MEDIA_PARAMS,
    Layer,
    Manifest,
    StoredManifest,
)
from ollamad.store.model import MAX_TEXT_BYTES, load_config, parse_params
from ollamad.store.names import Name
from ollamad.store.store import Store

logger = logging.getLogger(__name__)


class CreateDisk:
    """The store as one create uses it. ``in_use`` holds every blob that it counts on."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.in_use = store.in_use()

    def find(self, name: Name) -> tuple[Name, StoredManifest] | None:
        """The stored model of this name, in its stored spelling. Raises ManifestError."""
        name = self.store.resolve(name)
        try:
            return name, self.store.read_manifest(name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_old(self, target: Name) -> StoredManifest | None:
        """What the target is now; nothing if that cannot be read, for it is replaced anyway."""
        try:
            return self.store.read_manifest(target)
        except FileNotFoundError:
            return None
        except (OSError, ManifestError) as error:
            logger.warning("replaced manifest is unreadable model=%s error=%s", target, error)
            return None

    def use_uploads(self, maps: Iterable[Mapping[str, str] | None]) -> None:
        """From here on no deletion removes what the request names by digest (4.15)."""
        for files in maps:
            self.in_use.add(*filter(is_digest, (files or {}).values()))

    def inherit(self, name: Name) -> tuple[list[PlannedLayer], ConfigBlob]:
        """The layers and the config of the base model (4.2).

        Raises OllamadError (500): ``stat PATH: …`` for a missing blob, GGUFError for a damaged one.
        """
        found = self.find(name)
        if found is None:
            raise OllamadError(f"model '{name.short}' not found")
        name, stored = found
        layers = [self._inherit_layer(layer, name.short) for layer in stored.manifest.layers]
        layers = self._with_shards_as_one(layers, name)
        try:
            return layers, load_config(self.store, stored.manifest)
        except (OSError, OllamadError) as error:
            # By contract such a model can still be derived from.
            logger.warning("config is unreadable model=%s error=%s", name, error)
            return layers, EMPTY_CONFIG

    def _inherit_layer(self, layer: Layer, base: str) -> PlannedLayer:
        if not is_digest(layer.digest):
            raise ManifestError("invalid digest format")
        self.in_use.add(layer.digest)
        path = self.store.blob_path(layer.digest)
        try:
            size = path.stat().st_size
            self.store.touch_blob(layer.digest)
        except OSError as error:
            raise OllamadError(os_error_text("stat", error)) from error
        weights = None
        if layer.media_type in GGUF_LAYERS:
            weights = stored_weights(path, layer.media_type)
        return inherited_layer(layer, size, base, weights)

    def _with_shards_as_one(self, layers: list[PlannedLayer], name: Name) -> list[PlannedLayer]:
        """Shards stay layers of their own, without a copy of them; each tells of the whole model.

        Raises OllamadError for a model that lacks shards.
        """
        models = [layer for layer in layers if layer.media_type == MEDIA_MODEL]
        found = read_weights([self.store.blob_path(layer.digest) for layer in models], name.short)
        if found.incomplete:
            raise OllamadError(found.incomplete)
        if len(found.paths) <= 1 or found.facts is None:
            return layers
        whole = weights_of_facts(found.facts, MEDIA_MODEL)
        return [
            replace(layer, weights=whole) if layer.media_type == MEDIA_MODEL else layer
            for layer in layers
        ]

    def head(self, digest: str) -> bytes:
        """The first bytes of a blob, none if it cannot be read.

        Another file may still tell what an import is; reading this one as such will fail.
        """
        try:
            return read_head(self.store.blob_path(digest))
        except (OSError, BadRequest):
            return b""

    def read_upload(self, name: str, digest: str, role: Role) -> ImportedFile:
        """Raises OllamadError: ``invalid digest format``, and what ``uploaded_weights`` and
        ``imported_file`` raise; OSError for a missing blob."""
        try:
            check_digest(digest)
        except BadRequest as error:
            raise OllamadError(error.message) from error
        digest = digest.replace("-", ":", 1)
        path = self.store.blob_path(digest)
        weights = uploaded_weights(path)
        self.store.touch_blob(digest)
        return imported_file(name, digest, path.stat().st_size, weights, role)

    def validate(self, layer: PlannedLayer) -> None:
        """Raises GGUFError unless a runner could load the structure of the layer's file."""
        validate_file(self.store.blob_path(layer.digest))

    def size_of(self, layers: Iterable[PlannedLayer]) -> int:
        """Bytes of the blobs of these layers, all parts of split ones included."""
        return sum(
            self.store.blob_path(digest).stat().st_size
            for layer in layers
            for digest in layer.parts or (layer.digest,)
        )

    def stored_parameters(self, layers: Iterable[PlannedLayer]) -> list[dict[str, Any]]:
        """The contents of the params layers, stored or still to be stored. Raises ManifestError."""
        found = []
        for layer in layers:
            if layer.media_type != MEDIA_PARAMS:
                continue
            if layer.text is not None:
                content = layer.text.content
            elif layer.size <= MAX_TEXT_BYTES:
                content = self.store.blob_path(layer.digest).read_bytes()
            else:
                raise ManifestError(f"params layer larger than {MAX_TEXT_BYTES} bytes")
            found.append(parse_params(content))
        return found

    def store_texts(
        self, layers: Sequence[PlannedLayer], config: ConfigBlob
    ) -> tuple[list[PlannedLayer], Manifest]:
        """Make blobs of the small layers and of the config; the layers with their statuses."""
        stored = []
        for layer in layers:
            if layer.text is None:
                stored.append(layer)
                continue
            result = self._store_blob(layer.text.content)
            stored.append(replace(layer, status=layer.status or result.status, text=None))
        result = self._store_blob(encode_config(config))
        return stored, Manifest(
            config=Layer(media_type=MEDIA_CONFIG, digest=result.digest, size=result.size),
            layers=tuple(layer.as_layer() for layer in stored),
        )

    def _store_blob(self, content: bytes) -> BlobResult:
        with self.store.new_blob(self.in_use) as blob:
            blob.write(content)
            return blob.commit()

    def finish(self, target: Name, manifest: Manifest, old: StoredManifest | None) -> None:
        """Write the manifest, then remove what only the old one used: one step for cancellation."""
        self.store.write_manifest(target, manifest)
        # What the manifest names is safe now; what only the old one names must not be held by us.
        self.in_use.close()
        if old is not None:
            self.store.remove_superseded(old)
