"""Layers on their way into a manifest, and what happens to those that are GGUFs (4.3-4.6). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ollamad.create.split import GroupKey, Part, SplitInfo, check_part, ordered_parts
from ollamad.errors import BadRequest, OllamadError
from ollamad.store.digests import from_hex
from ollamad.store.json_text import encode
from ollamad.store.manifest import (
    MEDIA_ADAPTER,
    MEDIA_DRAFT,
    MEDIA_MODEL,
    MEDIA_PARAMS,
    MEDIA_PROJECTOR,
    MEDIA_TEMPLATE,
    Layer,
)

#: The types whose blobs are GGUFs.
GGUF_LAYERS = (MEDIA_MODEL, MEDIA_PROJECTOR, MEDIA_ADAPTER, MEDIA_DRAFT)

UNKNOWN = "unknown"

#: What an import is for.
Role = Literal["model", "adapter", "draft"]

#: What stage 9 does to a layer.
Rewrite = Literal["none", "validate", "merge", "projector"]

_QUANTIZATIONS = ("F32", "F16", "BF16", "Q8_0", "Q4_K_S", "Q4_K_M", "Q4_K")
_UNQUANTIZED = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What create needs to know of a GGUF. ``media_type`` is its classification (4.4)."""

    architecture: str
    media_type: str = MEDIA_MODEL
    is_adapter: bool = False
    file_type: str = UNKNOWN
    parameter_count: int = 0
    tensor_count: int = 0
    has_embedded_tensors: bool = False
    lacks_projector_type: bool = False
    chat_template: str = ""
    split: SplitInfo | None = None


@dataclass(frozen=True, slots=True)
class TextLayer:
    """A small layer to be made. ``status`` replaces the ordinary event text if it is not empty."""

    media_type: str
    content: bytes
    status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLayer:
    """A layer with the event that reports it. ``imported``: made from files by this request.

    ``parts``: the blobs of a split GGUF in order; digest and size are those of the first until they
    are merged. ``text``: what must be stored first.
    """

    media_type: str
    digest: str
    size: int
    status: str
    from_: str = ""
    name: str = ""
    weights: Weights | None = None
    imported: bool = False
    parts: tuple[str, ...] = ()
    text: TextLayer | None = None

    def as_layer(self) -> Layer:
        return Layer(
            media_type=self.media_type,
            digest=self.digest,
            size=self.size,
            from_=self.from_,
            name=self.name,
        )


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """A GGUF of the request: ``name`` as sent, ``size`` in bytes; ``group`` if it is a part."""

    name: str
    digest: str
    size: int
    weights: Weights
    group: GroupKey | None = None


def existing_layer(digest: str) -> str:
    """The status of a layer whose blob was there before."""
    return f"using existing layer {digest}"


def text_layer(text: TextLayer) -> PlannedLayer:
    """The layer of a text that is not stored yet."""
    return PlannedLayer(
        media_type=text.media_type,
        digest=from_hex(hashlib.sha256(text.content).hexdigest()),
        size=len(text.content),
        status=text.status,
        text=text,
    )


def inherited_layer(layer: Layer, size: int, base: str, weights: Weights | None) -> PlannedLayer:
    """A layer of the base model ``base``, with the size of its blob on disk (4.2)."""
    return PlannedLayer(
        media_type=layer.media_type,
        digest=layer.digest,
        size=size,
        status=existing_layer(layer.digest),
        from_=base,
        name=layer.name,
        weights=weights,
    )


def imported_file(name: str, digest: str, size: int, weights: Weights, role: Role) -> ImportedFile:
    """Check a file by itself: what it is, and if it is a part, whether its name says so.

    Raises BadRequest ``supplied file is not an adapter``, SplitError.
    """
    if role == "adapter" and not weights.is_adapter:
        # The reference would run it in place of the model.
        raise BadRequest("supplied file is not an adapter")
    split = weights.split
    group = check_part(name, split) if split is not None and split.count > 1 else None
    return ImportedFile(name, digest, size, weights, group)


def imported_layers(files: Sequence[ImportedFile], role: Role) -> list[PlannedLayer]:
    """The layers of all files of one import: whole files first, then the groups of parts (4.3).

    Raises SplitError for a group that is not complete.
    """
    layers = [
        _imported_layer(file, file.weights, role, parts=()) for file in files if file.group is None
    ]
    for key in dict.fromkeys(file.group for file in files if file.group is not None):
        members = {file.name: file for file in files if file.group == key}
        ordered = ordered_parts(key, [_part(file) for file in members.values()])
        layers.append(_merged_layer([members[part.file_name] for part in ordered], role))
    return layers


def _part(file: ImportedFile) -> Part:
    split = file.weights.split
    assert split is not None, "only parts have a group"
    assert split.number is not None, "checked with the name"
    return Part(file.name, split.number, file.weights.tensor_count, split.tensor_count)


def _merged_layer(files: Sequence[ImportedFile], role: Role) -> PlannedLayer:
    """The first part has the keys and so tells what the whole is."""
    first = files[0]
    weights = replace(
        first.weights,
        parameter_count=sum(file.weights.parameter_count for file in files),
        tensor_count=sum(file.weights.tensor_count for file in files),
        has_embedded_tensors=any(file.weights.has_embedded_tensors for file in files),
        split=None,
    )
    return _imported_layer(first, weights, role, parts=tuple(file.digest for file in files))


def _imported_layer(
    file: ImportedFile, weights: Weights, role: Role, *, parts: tuple[str, ...]
) -> PlannedLayer:
    if role == "draft":
        media_type = MEDIA_DRAFT
    elif role == "adapter":
        media_type = MEDIA_ADAPTER
    else:
        media_type = weights.media_type
    return PlannedLayer(
        media_type=media_type,
        digest=file.digest,
        size=file.size,
        status=existing_layer(file.digest),
        # A file name as the origin of weights would break what reads it as a model's name (4.6).
        from_="" if media_type == MEDIA_MODEL else file.name,
        weights=weights,
        imported=True,
        parts=parts,
    )


def rewrite_of(layer: PlannedLayer, quantize: str = "", draft_quantize: str = "") -> Rewrite:
    """What has to be done to a layer's blob (4.6). Quantization names are of any case.

    Raises OllamadError (500) for a quantization that is unknown, impossible, or not built yet.
    """
    weights = layer.weights
    if weights is None:
        return "none"
    wanted = {MEDIA_MODEL: quantize, MEDIA_DRAFT: draft_quantize}.get(layer.media_type, "")
    if wanted:
        _check_quantization(wanted.upper(), weights.file_type, layer.media_type == MEDIA_DRAFT)
    if layer.parts:
        return "merge"
    if not layer.imported:
        return "none"
    if layer.media_type == MEDIA_PROJECTOR and weights.lacks_projector_type:
        return "projector"
    return "validate"


def reports_validation(layer: PlannedLayer) -> bool:
    """Whether clients are told of the validation; the reference skips some kinds (4.6 rule 7)."""
    weights = layer.weights
    return (
        layer.imported
        and layer.media_type == MEDIA_MODEL
        and weights is not None
        and not weights.has_embedded_tensors
    )


def _check_quantization(wanted: str, present: str, draft: bool) -> None:
    if wanted not in _QUANTIZATIONS:
        raise OllamadError(
            f"unsupported quantization type {wanted} - "
            "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
        )
    if present not in _UNQUANTIZED:
        if draft and present != UNKNOWN:
            raise OllamadError(
                f"draft quantization requires an unquantized draft model, got {present}"
            )
        raise OllamadError("quantization is only supported for F16, BF16 and F32 models")
    if wanted != present:
        raise OllamadError(f"quantizing to {wanted} is not available yet")


@dataclass(frozen=True, slots=True)
class DetectedTemplate:
    """A built-in template that stands for a GGUF's own; ``stops`` go with it, possibly none.

    Without ``text`` the GGUF's own stays in use, and only the stops are added.
    """

    name: str
    text: str
    stops: tuple[str, ...] = ()


#: Finds the built-in template for the text of a GGUF's chat template, or none.
DetectTemplate = Callable[[str], DetectedTemplate | None]


def detected_layers(layers: Iterable[PlannedLayer], detect: DetectTemplate) -> list[PlannedLayer]:
    """The small layers that the chat templates of these layers give rise to, in order (4.7)."""
    found = []
    for layer in layers:
        text = layer.weights.chat_template if layer.weights is not None else ""
        template = detect(text) if text else None
        if template is None:
            continue
        if template.text:
            status = f"using autodetected template {template.name}"
            found.append(text_layer(TextLayer(MEDIA_TEMPLATE, template.text.encode(), status)))
        if template.stops:
            content = encode({"stop": list(template.stops)}) + b"\n"
            found.append(text_layer(TextLayer(MEDIA_PARAMS, content)))
    return found
