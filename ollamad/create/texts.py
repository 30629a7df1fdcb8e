"""The small layers: template, system, licences, parameters, messages (4.8). Pure.

Layers of the base and of detected templates come in, the final list goes out. A new layer carries
its content; the shell stores it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ollamad.create.config import DEFAULT_STOPS
from ollamad.create.layers import PlannedLayer, TextLayer, text_layer
from ollamad.errors import OllamadError
from ollamad.store.json_text import encode, json_kind
from ollamad.store.manifest import (
    MEDIA_LICENSE,
    MEDIA_MESSAGES,
    MEDIA_PARAMS,
    MEDIA_SYSTEM,
    MEDIA_TEMPLATE,
)
from ollamad.wire import CreateRequest, Message


def licenses_of(value: Any) -> list[str]:
    """The licence texts of a request. Raises OllamadError (500) for other JSON types."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, list):
        raise OllamadError(
            f"json: cannot unmarshal {json_kind(value)} into Go value of type []string"
        )
    for item in value:
        if item is not None and not isinstance(item, str):
            raise OllamadError(
                f"json: cannot unmarshal {json_kind(item)} into Go value of type string"
            )
    return [item or "" for item in value]


def merged_parameters(
    request: Mapping[str, Any] | None,
    stored: Sequence[Mapping[str, Any]],
    architectures: Sequence[str],
) -> dict[str, Any]:
    """The parameters of the new model; empty means that no layer is written.

    A key of the request hides the base's, even with ``null``; of several stored layers the first
    wins. ``architectures``: those of model layers that take the architecture's stops if none are
    given (4.12).
    """
    merged = dict(request or {})
    for layer in stored:
        for key, value in layer.items():
            merged.setdefault(key, value)
    for architecture in architectures:
        if architecture in DEFAULT_STOPS:
            merged.setdefault("stop", list(DEFAULT_STOPS[architecture]))
    return merged


def parameters_content(parameters: Mapping[str, Any]) -> bytes:
    """The bytes of a params layer: sorted keys, the reference's numbers and escapes, newline."""
    return encode(parameters, sort_keys=True) + b"\n"


def messages_content(messages: Sequence[Message]) -> bytes:
    """The bytes of a messages layer. Roles are lower-case, as decoding makes them."""
    folded = [msgspec.structs.replace(message, role=message.role.lower()) for message in messages]
    return encode(folded) + b"\n"


def new_texts(
    request: CreateRequest, parameters: Mapping[str, Any], licenses: Sequence[str]
) -> list[TextLayer]:
    """The layers that the request asks for, in the order in which they are appended."""
    texts = []
    if request.template:
        texts.append(_text(MEDIA_TEMPLATE, request.template))
    if request.system:
        texts.append(_text(MEDIA_SYSTEM, request.system))
    texts += [_text(MEDIA_LICENSE, text) for text in licenses]
    if parameters:
        texts.append(TextLayer(MEDIA_PARAMS, parameters_content(parameters)))
    if request.messages:
        texts.append(TextLayer(MEDIA_MESSAGES, messages_content(request.messages)))
    return texts


def _text(media_type: str, text: str) -> TextLayer:
    # A lone surrogate cannot have come through the decoder, but must not end in a traceback.
    return TextLayer(media_type, text.encode("utf-8", "replace"))


def with_texts(layers: Sequence[PlannedLayer], texts: Sequence[TextLayer]) -> list[PlannedLayer]:
    """The final list: ``texts`` at the end, without the layers that they replace.

    Licences add up, but none is kept twice; of every other small type the new layer replaces all
    that were there.
    """
    replaced = {text.media_type for text in texts} - {MEDIA_LICENSE}
    final = [layer for layer in layers if layer.media_type not in replaced]
    licenses = {layer.digest for layer in final if layer.media_type == MEDIA_LICENSE}
    for text in texts:
        layer = text_layer(text)
        if layer.media_type == MEDIA_LICENSE:
            if layer.digest in licenses:
                continue
            licenses.add(layer.digest)
        final.append(layer)
    return final
