"""JSON as the store's files hold it: exact bytes when written, tolerance when read. Pure.

Digests are over bytes, so writing must match the reference's encoder to the byte
(registry-and-store 2.3, modelfile-and-create 4.8). Reading takes the first JSON value of a file
and ignores the rest.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

import msgspec

from ollamad.store.errors import ManifestError
from ollamad.store.json_syntax import first_value

# Outside of strings none of these bytes can occur, so plain replacement is exact.
_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)

_encoder = msgspec.json.Encoder()


def encode(value: Any, *, sort_keys: bool = False) -> bytes:
    """``value`` as compact JSON with the reference's escapes and numbers, without a final newline.

    Structs, containers, text, numbers and booleans; ``sort_keys`` sorts the keys of every object,
    otherwise they keep their order. Integral floats lose their ``.0``; 64-bit integers stay exact.
    """
    encoded = _encoder.encode(_prepared(msgspec.to_builtins(value), sort_keys))
    for character, escape in _ESCAPES:
        if character in encoded:
            encoded = encoded.replace(character, escape)
    return encoded


def _prepared(value: Any, sort_keys: bool) -> Any:
    if isinstance(value, dict):
        items = sorted(value.items()) if sort_keys else value.items()
        return {well_formed(key): _prepared(item, sort_keys) for key, item in items}
    if isinstance(value, list | tuple):
        return [_prepared(item, sort_keys) for item in value]
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, float) or (isinstance(value, int) and not -(2**63) <= value < 2**64):
        return msgspec.Raw(number(float(value)).encode())
    return value


def number(value: float) -> str:
    """Shortest digits that read back as ``value``; an exponent only below 1e-6 or from 1e21.

    Raises ValueError for what JSON cannot express.
    """
    if not math.isfinite(value):
        raise ValueError(f"unsupported value: {value}")
    text = repr(value)
    if value == 0:
        return "-0" if text.startswith("-") else "0"
    if 1e-6 <= abs(value) < 1e21:
        plain = format(Decimal(text), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    mantissa, _, exponent = text.partition("e")
    mantissa = mantissa.removesuffix(".0")
    sign = exponent[0] if exponent[0] in "+-" else "+"
    return f"{mantissa}e{sign}{exponent.lstrip('+-').lstrip('0')}"


def decode_first(raw: bytes) -> Any:
    """The first JSON value in ``raw``; whatever follows it is ignored.

    Raises ManifestError with the reference's syntax error text.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # the exact reader below decides: it may be valid in the reference's eyes
    value = first_value(raw)
    if value.error is not None:
        raise ManifestError(value.error)
    text = raw[value.start : value.end].decode("utf-8", "replace")
    try:
        return _repaired(json.loads(text))
    except RecursionError:
        raise ManifestError("exceeded max depth") from None
    except ValueError as error:
        raise ManifestError(str(error)) from error


def _repaired(value: Any) -> Any:
    """``value`` without lone surrogates, which could not be encoded again.

    Raises ValueError for a number beyond a 64-bit float.
    """
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, float) and math.isinf(value):
        raise ValueError("json: number out of range")
    if isinstance(value, list):
        return [_repaired(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): _repaired(item) for key, item in value.items()}
    return value


_HALF_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """``text`` with U+FFFD for every half of a surrogate pair, which no file or answer can hold."""
    return text if text.isascii() else _HALF_SURROGATE.sub("\ufffd", text)


class Fields:
    """A decoded JSON object read leniently, field by field, as the reference does it.

    Missing and ``null`` fields give zero values, unknown ones are ignored, keys match exactly or
    else without regard to case. A field of another type raises ManifestError.
    """

    def __init__(self, value: Any, what: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise ManifestError(
                f"json: cannot unmarshal {json_kind(value)} into Go value of type {what}"
            )
        self._what = what
        self._values: dict[str, Any] = value
        self._folded: dict[str, Any] | None = None

    def get(self, key: str) -> Any:
        if key in self._values:
            return self._values[key]
        if self._folded is None:
            self._folded = {name.lower(): item for name, item in self._values.items()}
        return self._folded.get(key.lower())

    def _wrong(self, key: str, value: Any, wanted: str) -> ManifestError:
        return ManifestError(
            f"json: cannot unmarshal {json_kind(value)} into Go struct field "
            f"{self._what}.{key} of type {wanted}"
        )

    def text(self, key: str) -> str:
        value = self.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(key, value, "string")
        return value

    def integer(self, key: str) -> int:
        value = self.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
            raise self._wrong(key, value, "int64")
        return value

    def array(self, key: str) -> list[Any] | None:
        value = self.get(key)
        if value is not None and not isinstance(value, list):
            raise self._wrong(key, value, "[]interface {}")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings; ``null`` and a missing field are none, ``null`` items are empty."""
        values = self.array(key)
        if values is None:
            return None
        for value in values:
            if value is not None and not isinstance(value, str):
                raise self._wrong(key, value, "string")
        return tuple(value or "" for value in values)


def json_kind(value: Any) -> str:
    """What the reference calls a value of this type; ``object`` also for none."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list) else "object"
