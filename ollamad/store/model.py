"""A stored model as the rest of the daemon sees it: where its files are and what its texts say."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from ollamad.errors import BadRequest
from ollamad.store.config import EMPTY_CONFIG, ConfigBlob, parse_config
from ollamad.store.errors import ManifestError
from ollamad.store.json_text import decode_first
from ollamad.store.manifest import (
    MEDIA_ADAPTER,
    MEDIA_DRAFT,
    MEDIA_EMBED,
    MEDIA_LICENSE,
    MEDIA_MESSAGES,
    MEDIA_MODEL,
    MEDIA_PARAMS,
    MEDIA_PROJECTOR,
    MEDIA_PROMPT,
    MEDIA_SYSTEM,
    MEDIA_TEMPLATE,
    Layer,
    Manifest,
    StoredManifest,
)
from ollamad.store.manifest_files import read_file
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import Message

logger = logging.getLogger(__name__)

#: A text or JSON layer, or a config, beyond this size is an error rather than memory.
MAX_TEXT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A model read from the store. Paths are of blobs that may be missing.

    ``digest``: 64 hex digits of the manifest; ``size``: bytes as stated; ``modified_at_ns``: since
    the epoch; ``model_path``: of several model layers the last, which counts unless they are the
    shards of one model; ``model_paths``: all of them in the manifest's order; ``parent``: what the
    weights were made from, often empty; ``template``: the stored template's text, none when there
    is none; ``params``: default options by name.
    """

    name: Name
    manifest: Manifest
    digest: str
    size: int
    modified_at_ns: int
    config: ConfigBlob
    model_path: Path | None
    model_paths: tuple[Path, ...]
    model_digest: str
    parent: str
    adapter_paths: tuple[Path, ...]
    projector_paths: tuple[Path, ...]
    draft_path: Path | None
    template: str | None
    system: str
    params: Mapping[str, Any]
    messages: tuple[Message, ...]
    licenses: tuple[str, ...]

    @property
    def short_name(self) -> str:
        """The name as lists show it, always with its tag."""
        return self.name.short


class Models:
    """Reads models from a store, each once while its manifest stays the same.

    Blobs never change, so a manifest that is the same object says that nothing has. Safe to use
    from several threads; blocks on the disk.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loaded: dict[Name, tuple[StoredManifest, Model]] = {}

    def load(self, name: Name) -> Model:
        """The model in exactly this spelling of its name. Raises as ``load_model``."""
        stored = self._store.read_manifest(name)
        known = self._loaded.get(name)
        if known is not None and known[0] is stored:
            return known[1]
        model = read_model(self._store, name, stored)
        if len(self._loaded) >= 1024:
            self._loaded.clear()  # names of models long gone
        self._loaded[name] = (stored, model)
        return model

    def all(self) -> list[Model]:
        """All models that can be read, ordered by path; the others are logged and left out."""
        models = []
        for name, stored in self._store.manifests():
            known = self._loaded.get(name)
            if known is not None and known[0] is stored:
                models.append(known[1])
                continue
            try:
                model = read_model(self._store, name, stored)
            except (OSError, ManifestError) as error:
                _complain(name.full, str(error))
                continue
            self._loaded[name] = (stored, model)
            models.append(model)
        return models


@lru_cache(maxsize=256)
def _complain(name: str, error: str) -> None:
    """Once: programs ask for the list every few seconds."""
    logger.warning("bad model name=%s error=%s", name, error)


def load_model(store: Store, name: Name) -> Model:
    """The model in exactly this spelling of its name.

    Raises BadRequest for an invalid name, FileNotFoundError when the manifest, the config or a text
    layer is missing (weights may be), ManifestError when one of them cannot be read.
    """
    return read_model(store, name, store.read_manifest(name))


def load_config(store: Store, manifest: Manifest) -> ConfigBlob:
    """The config of a model; all fields empty for a model without one. Raises as ``load_model``."""
    if not manifest.config.digest:
        return EMPTY_CONFIG
    return parse_config(_read_layer(store, manifest.config))


def read_model(store: Store, name: Name, stored: StoredManifest) -> Model:
    """The model that a manifest describes. Raises as ``load_model``."""
    manifest = stored.manifest
    weights: Layer | None = None
    weight_paths: list[Path] = []
    adapters: list[Path] = []
    projectors: list[Path] = []
    draft: Path | None = None
    template: str | None = None
    system = ""
    params: dict[str, Any] = {}
    messages: tuple[Message, ...] = ()
    licenses: list[str] = []
    for layer in manifest.layers:
        kind = layer.media_type
        if kind == MEDIA_MODEL:
            weights = layer
            weight_paths.append(_path(store, layer))
        elif kind == MEDIA_ADAPTER:
            adapters.append(_path(store, layer))
        elif kind == MEDIA_PROJECTOR:
            projectors.append(_path(store, layer))
        elif kind == MEDIA_DRAFT:
            draft = _path(store, layer)
        elif kind in (MEDIA_TEMPLATE, MEDIA_PROMPT):
            template = _read_text(store, layer)
        elif kind == MEDIA_SYSTEM:
            system = _read_text(store, layer)
        elif kind == MEDIA_PARAMS:
            params |= parse_params(_read_layer(store, layer))
        elif kind == MEDIA_MESSAGES:
            messages = parse_messages(_read_layer(store, layer))
        elif kind == MEDIA_LICENSE:
            licenses.append(_read_text(store, layer))
        elif kind == MEDIA_EMBED:
            logger.warning("layer type is no longer supported, ignored model=%s", name)
        # Tensors, companion files, and types that later versions may know are not read.
    return Model(
        name=name,
        manifest=manifest,
        digest=stored.digest,
        size=stored.size,
        modified_at_ns=stored.modified_at_ns,
        config=load_config(store, manifest),
        model_path=weight_paths[-1] if weight_paths else None,
        model_paths=tuple(weight_paths),
        model_digest="" if weights is None else weights.digest,
        parent="" if weights is None else weights.from_,
        adapter_paths=tuple(adapters),
        projector_paths=tuple(projectors),
        draft_path=draft,
        template=template,
        system=system,
        params=params,
        messages=messages,
        licenses=tuple(licenses),
    )


def parse_params(raw: bytes) -> dict[str, Any]:
    """The default options of a params layer. Raises ManifestError."""
    value = decode_first(raw)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ManifestError("json: cannot unmarshal params into Go value of type map[string]any")
    return value


def parse_messages(raw: bytes) -> tuple[Message, ...]:
    """The preset conversation of a messages layer. Raises ManifestError."""
    value = decode_first(raw)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ManifestError("json: cannot unmarshal messages into Go value of type []api.Message")
    try:
        return tuple(msgspec.convert([_message(item) for item in value], list[Message]))
    except msgspec.ValidationError as error:
        raise ManifestError(f"json: cannot unmarshal messages: {error}") from error


def _message(item: dict[str, Any]) -> dict[str, Any]:
    """Zero values for what is missing, as the reference reads it."""
    fields = {"role": "", "content": "", **_present(item)}
    if isinstance(fields["role"], str):
        fields["role"] = fields["role"].lower()
    calls = fields.get("tool_calls")
    if isinstance(calls, list):
        fields["tool_calls"] = [_tool_call(call) for call in calls]
    return fields


def _tool_call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    function = call.get("function")
    function = _present(function) if isinstance(function, dict) else {}
    return {**_present(call), "function": {"index": 0, "name": "", "arguments": {}, **function}}


def _present(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if value is not None}


def _path(store: Store, layer: Layer) -> Path:
    try:
        return store.blob_path(layer.digest)
    except BadRequest as error:
        # Here the manifest is at fault, not the request.
        raise ManifestError(error.message) from error


def _read_text(store: Store, layer: Layer) -> str:
    return _read_layer(store, layer).decode("utf-8", "replace")


def _read_layer(store: Store, layer: Layer) -> bytes:
    path = _path(store, layer)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        raw = read_file(descriptor, MAX_TEXT_BYTES)
    finally:
        os.close(descriptor)
    if raw is None:
        raise ManifestError(f"{path}: layer larger than {MAX_TEXT_BYTES} bytes")
    return raw
