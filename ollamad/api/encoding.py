"""JSON as the API writes it, to the byte (http-api.md 3.2). Pure.

Compact, keys in the order of the Structs, ``<``, ``>``, ``&`` and the two Unicode line separators
escaped, integral floats without ``.0``. Events pass at the speed of the C encoder: the rules that
it does not know are applied only to bytes that need them.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ollamad.store.json_text import number, well_formed

JSON = "application/json; charset=utf-8"
#: Non-streaming results of create, pull and push, and errors before the first event of a stream.
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"

_encode = msgspec.json.Encoder().encode
# As numbers, because looking for a byte by its number is several times faster than by its text.
_LESS, _GREATER, _AMPERSAND, _SEPARATOR = b"<>&\xe2"
_SEPARATORS = (("\u2028".encode(), b"\\u2028"), ("\u2029".encode(), b"\\u2029"))
# What the C encoder writes in another form: 1.0, 1e-6, 1e16 to 1e308. Text may look like it too.
_ODD_FRACTION = re.compile(rb"\.0(?![0-9])")
_ODD_EXPONENT = re.compile(rb"e(?:-6(?![0-9])|[1-3][0-9])")
_HIGH_DIGITS = frozenset("89")
# Possessive: a string is never tried in another way, which would cost memory for each escape.
_STRING_OR_FLOAT = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|-?[0-9]+(?:\.[0-9]+(?:e[-+]?[0-9]+)?|e[-+]?[0-9]+)'
)


def encode(value: Any) -> bytes:
    """``value`` (Structs, containers, text, numbers) as JSON without a final newline.

    Floats that are not finite become ``null``; half surrogate pairs become U+FFFD.
    """
    try:
        encoded = _encode(value)
    except UnicodeEncodeError:
        encoded = _encode(_well_formed(msgspec.to_builtins(value)))
    if _ODD_FRACTION.search(encoded) or _ODD_EXPONENT.search(encoded):
        encoded = _STRING_OR_FLOAT.sub(_plain_number, encoded)
    # Outside of strings none of these bytes occur, so plain replacement is exact.
    if _LESS in encoded:
        encoded = encoded.replace(b"<", b"\\u003c")
    if _GREATER in encoded:
        encoded = encoded.replace(b">", b"\\u003e")
    if _AMPERSAND in encoded:
        encoded = encoded.replace(b"&", b"\\u0026")
    if _SEPARATOR in encoded:
        for separator, escape in _SEPARATORS:
            encoded = encoded.replace(separator, escape)
    return encoded


def encode_lines(events: Iterable[Any]) -> bytes:
    """Events that arrived together as NDJSON, to be sent with one write (http-api.md 7.2)."""
    return b"".join([encode(event) + b"\n" for event in events])


def error_object(message: str) -> bytes:
    """``{"error": message}`` without a newline (http-api.md 6.1)."""
    return encode({"error": message})


def float32_array(values: Sequence[float]) -> bytes:
    """``values`` rounded to 32-bit floats, each with the fewest digits that read back as it.

    The form of ``/api/embed``. Values must be finite. Put it into a Struct as ``msgspec.Raw``.
    """
    singles = array("f", values)
    texts = _formatted("%.7g", singles)
    places = _changed(texts, singles)
    for form in ("%.8g", "%.9g"):
        if not places:
            break
        longer = array("f", [singles[place] for place in places])
        more = _formatted(form, longer)
        for place, text in zip(places, more, strict=True):
            texts[place] = text
        places = [places[at] for at in _changed(more, longer)]
    for place, text in enumerate(texts):
        if "e" in text:
            texts[place] = _shortest(singles[place])
        elif text.lstrip("-0.")[:1] in _HIGH_DIGITS:
            # Seven digits without trailing zeros are the fewest, but for this: with a high first
            # digit the rounding to seven can miss a value that six digits name.
            shorter = f"{singles[place]:.6g}"
            if array("f", (float(shorter),))[0] == singles[place]:
                texts[place] = shorter
    return f"[{','.join(texts)}]".encode()


def float64_array(values: Sequence[float]) -> bytes:
    """``values`` rounded to 32-bit floats and widened again: the form of ``/api/embeddings``."""
    return encode(array("f", values).tolist())


def _formatted(form: str, singles: array[float]) -> list[str]:
    if not singles:
        return []
    return (",".join([form] * len(singles)) % tuple(singles)).split(",")


def _changed(texts: list[str], singles: array[float]) -> list[int]:
    read_back = array("f", map(float, texts))
    if read_back == singles:
        return []
    pairs = zip(read_back, singles, strict=True)
    return [place for place, (back, single) in enumerate(pairs) if back != single]


def _shortest(single: float) -> str:
    """For very large and very small values; the denormal ones have few digits."""
    for digits in range(1, 10):
        text = f"{single:.{digits}g}"
        if array("f", (float(text),))[0] == single:
            break
    return number(float(text)) if "e" in text else text


def _plain_number(match: re.Match[bytes]) -> bytes:
    token = match[0]
    return token if token.startswith(b'"') else number(float(token)).encode()


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    return value
