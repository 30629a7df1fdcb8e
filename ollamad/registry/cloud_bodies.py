"""The bodies that are sent to the cloud: what a client asked, with the model's plain name. Pure.

Source: http-api.md 17.1.2 (decoded requests are written again, in the reference's order and with
the fields that it never leaves out) and compat-apis.md 2.3 (raw bodies keep all they have).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

from ollamad.errors import BadRequest
from ollamad.store.json_text import encode
from ollamad.store.names import parse_reference
from ollamad.units import format_duration
from ollamad.wire import (
    ChatRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
    ShowRequest,
)

#: The requests that may be for a model of the cloud.
CloudRequest = GenerateRequest | ChatRequest | EmbedRequest | EmbeddingRequest | ShowRequest

#: Fields that are written even when they are empty.
_ALWAYS: dict[type[msgspec.Struct], frozenset[str]] = {
    GenerateRequest: frozenset(("prompt", "suffix", "system", "template", "options")),
    ChatRequest: frozenset(("messages", "options")),
    EmbedRequest: frozenset(("input", "options")),
    EmbeddingRequest: frozenset(("prompt", "options")),
    ShowRequest: frozenset(("system", "template", "verbose", "options", "name")),
}
#: Fields of which false is something else than nothing.
_OPTIONAL = frozenset(("stream", "think", "truncate", "shift", "keep_alive"))
_SHOW_ORDER = ("model", "system", "template", "verbose", "options", "name")


def cloud_body(request: CloudRequest, model: str) -> bytes:
    """``request`` as JSON for another server, where the model is called ``model``."""
    members = [b'"model":' + encode(model)]
    always = _ALWAYS[type(request)]
    names = {f.encode_name: f.name for f in msgspec.structs.fields(request)}
    if isinstance(request, ShowRequest):
        # An alias that means the same is not sent beside the name itself.
        request = msgspec.structs.replace(request, name="")
        names = {name: name for name in _SHOW_ORDER}
    for name, attribute in names.items():
        value = getattr(request, attribute)
        if name != "model" and (name in always or _is_given(name, value)):
            members.append(encode(name) + b":" + _value(name, value))
    return b"{" + b",".join(members) + b"}"


def _is_given(name: str, value: Any) -> bool:
    return value is not None if name in _OPTIONAL else bool(value)


def _value(name: str, value: Any) -> bytes:
    if name == "keep_alive":
        return encode(keep_alive_value(value))
    if name == "format":
        return compact(bytes(value))
    if name == "options" and value is not None:
        value = dict(sorted(value.items()))
    return encode(value)


def keep_alive_value(nanoseconds: int) -> str | int:
    """``keep_alive`` for another server: -1 for negative ones, else a duration's text (8.2)."""
    return -1 if nanoseconds < 0 else format_duration(nanoseconds)


def compact(text: bytes) -> bytes:
    """JSON without blanks between its parts, as it is otherwise."""
    try:
        return msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return text  # half a surrogate pair, or nested too deep for the library: JSON all the same


def cloud_model_in(body: bytes) -> str | None:
    """The plain name of the cloud's model that a raw ``body`` asks for; None: it asks for none.

    A body that is no JSON object, or whose ``model`` is no name, is for the local handler to
    refuse.
    """
    members = _members(body)
    model = None if members is None else _text(members.get("model"))
    if model is None:
        return None
    try:
        reference = parse_reference(model)
    except BadRequest:
        return None
    return reference.base if reference.source == "cloud" else None


def with_model(body: bytes, model: str) -> bytes:
    """The raw ``body`` for a model of this name: keys sorted at the top, all values as they are.

    Raises BadRequest for a body that is no JSON object.
    """
    members = _members(body)
    if members is None:
        raise BadRequest("the body must be a JSON object")
    members["model"] = encode(model)
    # Text sorts by code points as its UTF-8 does by bytes.
    pairs = (encode(name) + b":" + value for name, value in sorted(members.items()))
    return b"{" + b",".join(pairs) + b"}"


def _members(body: bytes) -> dict[str, bytes] | None:
    """The members of an object, each value as compact JSON; the last of those of one name."""
    try:
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {name: compact(bytes(value)) for name, value in found.items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    # Half surrogates and what is no UTF-8, which the fast reader does not take.
    try:
        value = json.loads(body.decode("utf-8", "replace"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return {name: json.dumps(item, separators=(",", ":")).encode() for name, item in value.items()}


def _text(value: bytes | None) -> str | None:
    found = None if value is None else json.loads(value.decode("utf-8", "replace"))
    return found if isinstance(found, str) else None


def _refuse(literal: str) -> NoReturn:
    raise ValueError(literal)
