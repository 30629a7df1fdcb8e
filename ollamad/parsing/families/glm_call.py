"""The text of a GLM call: a name and ``<arg_key>``/``<arg_value>`` pairs, repaired if need be.

Pure. Not XML: everything but those four tags is text. Source: renderers-and-parsers.md 3.11.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ollamad.parsing.events import Call
from ollamad.parsing.values import coerce, property_types
from ollamad.wire import Tool

_TAG = re.compile("</?arg_(?:key|value)>")
_KEY, _KEY_END, _VALUE, _VALUE_END = range(4)
#: What follows what in a well-formed call.
_CYCLE = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")


@dataclass
class _Parts:
    outside: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)


def read_glm_call(text: str, tools: Sequence[Tool], *, repair: bool = True) -> Call:
    """The call that ``text`` is; ``tools`` give the types, the name need not be theirs.

    Raises ValueError with the reference's message if there is no name, a key without a value or
    a repeated key, and without ``repair`` also if the tags do not nest.
    """
    pieces = _pieces(text)
    parts = _nested(pieces)
    if parts is None:
        if not repair:
            raise ValueError("failed to parse XML: the tags do not nest")
        parts = _repaired(pieces)
    name = "".join(parts.outside).strip()
    if not name:
        raise ValueError("empty function name")
    if len(parts.keys) != len(parts.values):
        raise ValueError(
            "mismatched arg_key and arg_value counts: "
            f"{len(parts.keys)} keys, {len(parts.values)} values"
        )
    arguments = {}
    for written, value in zip(parts.keys, parts.values, strict=True):
        key = written.strip()
        if key in arguments:
            raise ValueError(f'repeated argument "{key}"')  # one of the values would be lost
        arguments[key] = coerce(value, property_types(tools, name, key))
    return Call(name, arguments)


def _pieces(text: str) -> list[tuple[str, int | None]]:
    """Texts, each with the place in the cycle of the tag that follows it, None for the last."""
    pieces: list[tuple[str, int | None]] = []
    at = 0
    for tag in _TAG.finditer(text):
        pieces.append((text[at : tag.start()], _CYCLE.index(tag[0])))
        at = tag.end()
    return [*pieces, (text[at:], None)]


def _nested(pieces: list[tuple[str, int | None]]) -> _Parts | None:
    """The parts if every element is closed before the next one, else None."""
    parts = _Parts()
    inside: int | None = None
    for text, tag in pieces:
        if inside is None:
            if tag in (_KEY_END, _VALUE_END):
                return None
            parts.outside.append(text)
            inside = tag
        elif tag == inside + 1:
            (parts.keys if inside == _KEY else parts.values).append(text)
            inside = None
        else:
            return None
    return parts


def _repaired(pieces: list[tuple[str, int | None]]) -> _Parts:
    """The parts with the tags put in that the cycle misses before each tag that is there."""
    parts = _Parts()
    expected = _KEY
    for number, (piece, tag) in enumerate(pieces):
        text = piece
        if number == 0 and tag not in (_KEY, None):
            name, *key = text.split(maxsplit=1)[:2] or [""]
            parts.outside.append(name)
            text = key[0] if key else ""
        # Without a tag the answer has ended: only what is open is closed.
        while expected != tag and (tag is not None or expected in (_KEY_END, _VALUE_END)):
            if expected == _KEY_END:
                parts.keys.append(text)
                text = ""
            elif expected == _VALUE_END:
                parts.values.append(text)
                text = ""
            expected = (expected + 1) % 4
        if tag == _KEY_END:
            parts.keys.append(text)
        elif tag == _VALUE_END:
            parts.values.append(text)
        else:
            parts.outside.append(text)
        expected = (expected + 1) % 4
    return parts
