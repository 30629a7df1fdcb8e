"""Requests as the API wants to receive them. Pure.

`ollamad.wire` holds ``keep_alive`` as the daemon understands it, in nanoseconds; on the wire it is
a text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ollamad.units import format_duration, parse_duration

#: A value of ``keep_alive`` on the wire: ``"5m0s"``, or -1 for without end.
KeepAlive = str | int


def keep_alive(text: str) -> KeepAlive:
    """What ``--keepalive TEXT`` sends. Raises ValueError with the text of 5.4."""
    nanoseconds = parse_duration(text)
    return -1 if nanoseconds < 0 else format_duration(nanoseconds)


def body(request: msgspec.Struct, keep_alive: KeepAlive | None = None) -> dict[str, Any]:
    """The fields of ``request`` that differ from their defaults, and ``keep_alive`` if given."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(request)):
        value = getattr(request, field.name)
        if field.required or value != field.default:
            fields[field.encode_name] = value
    if keep_alive is not None:
        fields["keep_alive"] = keep_alive
    return fields
