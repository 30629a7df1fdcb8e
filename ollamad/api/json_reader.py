"""A request body as JSON values that still know what objects and numbers looked like. Pure.

The reference's reader takes the first JSON value and ignores what follows, keeps the order and the
repetition of keys, and says in its own words what is wrong (http-api.md 3.1). Here the C scanner of
the standard library does the work and the exact, slower scanner is asked only about bodies that it
refuses.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec

from ollamad.errors import BadRequest
from ollamad.store.json_syntax import first_value
from ollamad.store.json_text import well_formed

_BLANK = " \t\r\n"
# Possessive: a string is never tried in another way, which would cost memory for each escape.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
#: Values nested deeper than this below the top are read as ``null``: Python's own stack is finite,
#: and nothing that means anything to the API is nested so deep.
_DEEPEST = 200


class Object(list[tuple[str, Any]]):
    """The members of a JSON object in their order, repeated keys included."""

    __slots__ = ()


class Literal(str):
    """A number as the body spells it; only `read_exactly` makes these."""

    __slots__ = ()


class _NotJSON(ValueError):
    pass


def _refuse(_literal: str) -> NoReturn:
    raise _NotJSON  # NaN and Infinity


def _integer(literal: str) -> int | float:
    try:
        return int(literal)
    except ValueError:  # beyond the number of digits that Python converts
        return float(literal)


_fast = json.JSONDecoder(
    object_pairs_hook=Object, parse_int=_integer, parse_constant=_refuse
).raw_decode
_exact = json.JSONDecoder(
    object_pairs_hook=Object, parse_int=Literal, parse_float=Literal, parse_constant=_refuse
).raw_decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Document:
    """The first JSON value of a body.

    ``value`` holds `Object`, list, str, int, float, bool and None. Raises BadRequest for an empty
    body and for a syntax error, with the reference's text.
    """

    __slots__ = ("text", "value")

    def __init__(self, body: bytes) -> None:
        text = body.decode("utf-8", "replace").lstrip(_BLANK)
        if not text:
            raise BadRequest("missing request body")
        try:
            self.value, end = _fast(text)
            text = text[:end]
        except RecursionError:
            text = _pruned(_checked(text))
            self.value, _ = _fast(text)
        except ValueError:
            # The exact scanner disagrees only about spellings that Python would not read.
            text = _checked(text)
            self.value, _ = _fast(text)
        self.text = text

    def shallow(self) -> Document:
        """The same without what is nested too deep for Python's stack."""
        copy = object.__new__(Document)
        copy.text = _pruned(self.text)
        copy.value, _ = _fast(copy.text)
        return copy

    def with_literals(self) -> Any:
        """The value again with numbers as `Literal`, for error texts that quote them."""
        return _exact(self.text)[0]

    def member_text(self, name: str) -> bytes:
        """The JSON text of the last member called ``name`` of the top-level object."""
        last = b"null"
        try:
            for key, raw in _decode_members(self.text):
                if key.casefold() == name:
                    last = bytes(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            # Half surrogates, which only Python's reader takes: the value written again instead.
            for key, value in self.value:
                if key.casefold() == name:
                    last = json.dumps(_plain(value), separators=(",", ":")).encode()
        return last


def _decode_members(text: str) -> list[tuple[str, msgspec.Raw]]:
    return list(_members.decode(text).items())


def _plain(value: Any) -> Any:
    if isinstance(value, Object):
        return {well_formed(key): _plain(item) for key, item in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return well_formed(value) if isinstance(value, str) else value


def _checked(text: str) -> str:
    """The text of the first value. Raises BadRequest with what the reference would say."""
    raw = text.encode()
    found = first_value(raw)
    if found.error is None:
        return raw[: found.end].decode()
    if found.error == "exceeded max depth":
        raise BadRequest(f"invalid character '{_too_deep(text)}' exceeded max depth")
    raise BadRequest(found.error)


def _too_deep(text: str) -> str:
    """The bracket that opens level 10001."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            if depth > 10_000:
                return bracket
        elif bracket in "]}":
            depth -= 1
    return "["


def _pruned(text: str) -> str:
    kept: list[str] = []
    depth = 0
    at = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            if depth == _DEEPEST:
                kept += (text[at : match.start()], "null")
        elif bracket in "]}":
            if depth == _DEEPEST:
                at = match.end()
            depth -= 1
    kept.append(text[at:])
    return "".join(kept)
