"""From a server's JSON to the Structs of ``ollamad.wire``.

The server may be older than the contract: what it leaves out, or sends as null, is zero, and what
it sends beyond is ignored.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from ollamad.cli.errors import ServerError

T = TypeVar("T", bound=msgspec.Struct)

_ZEROS: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False}


def decode(kind: type[T], body: bytes) -> T:
    """``body`` as a ``kind``. Raises ServerError when it is no such object."""
    try:
        # All fields are there in nearly every answer.
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        value = msgspec.json.decode(body)
        return msgspec.convert(_completed(kind, value), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ServerError(f"cannot read the server's answer: {error}") from error


def _completed(kind: Any, value: Any) -> Any:
    """``value`` with zeros where ``kind`` wants something and there is nothing."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        given: Mapping[str, Any] = value if isinstance(value, dict) else {}
        if value is not None and not isinstance(value, dict):
            return value
        filled = dict(given)
        for field in msgspec.structs.fields(kind):
            if field.required or field.encode_name in given:
                name = field.encode_name
                filled[name] = _completed(field.type, given.get(name))
        return filled
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        branches = get_args(kind)
        if value is None and type(None) in branches:
            return None
        rest = [branch for branch in branches if branch is not type(None)]
        return _completed(rest[0], value) if len(rest) == 1 else value
    if origin is list:
        items = value if isinstance(value, list) else []
        if value is not None and not isinstance(value, list):
            return value
        return [_completed(get_args(kind)[0], item) for item in items]
    if value is None:
        return {} if origin is dict else _ZEROS.get(kind)
    return value
