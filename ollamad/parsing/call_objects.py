"""The JSON object of a tool call as models write it: where it ends, and what it calls. Pure.

Source: prompting.md 8.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ollamad.parsing.events import Call
from ollamad.parsing.values import read_json

#: ``<`` never stands in JSON outside of strings: there markup begins, and the object is broken.
_STRUCTURE = re.compile(r'[{}"<]')
_STRING_END = re.compile(r'\\.|"', re.DOTALL)
_ARGUMENTS = ("arguments", "parameters")


class ObjectScanner:
    """Finds the end of the balanced ``{…}`` that begins at ``start`` of a growing text.

    Braces inside strings do not count; markup ends an object that was never closed. Each character
    is looked at once.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self._at = start
        self._depth = 0
        self._in_string = False

    def end(self, text: str) -> int | None:
        """The place after the closing brace, or of the markup before it; None if ``text`` holds
        neither yet."""
        while True:
            if self._in_string:
                found = _STRING_END.search(text, self._at)
                if found is None:
                    # A backslash at the very end belongs to a character that is yet to come.
                    self._at = len(text) - text.endswith("\\", self._at)
                    return None
                self._in_string = found[0] != '"'
            else:
                found = _STRUCTURE.search(text, self._at)
                if found is None:
                    self._at = len(text)
                    return None
                if found[0] == "<":
                    return found.start()
                if found[0] == '"':
                    self._in_string = True
                else:
                    self._depth += 1 if found[0] == "{" else -1
            self._at = found.end()
            if self._depth == 0:
                return self._at


def read_object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is, or None."""
    try:
        value = read_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def call_of(header: str, text: str, tools: Sequence[str]) -> Call | None:
    """The call that the object ``text`` makes, or None if it calls none of ``tools``.

    ``header`` is what stands between the tag and the object. The object's own name decides when it
    is one of the tools'; otherwise the tool that is named first, in the header or in the object,
    though not among the arguments of a call to something else.
    """
    value = read_object(text)
    if value is None:
        return None
    own = _own_name(value)
    if own in tools:
        name: str | None = own
    else:
        name = first_name(header + (text if own is None else own), tools)
    if name is None:
        return None
    in_header = first_name(header, tools) is not None
    arguments = _arguments(value, name, in_header)
    if arguments is _UNUSABLE:
        return None
    return Call(name, value if arguments is None else arguments)


def first_name(text: str, tools: Sequence[str]) -> str | None:
    """The tool named first in ``text``, the longest of several at one place."""
    found = [(at, -len(name), name) for name in tools if (at := text.find(name)) >= 0]
    return min(found)[2] if found else None


_UNUSABLE: dict[str, Any] = {}


def _own_name(value: dict[str, Any]) -> str | None:
    own = value.get("name")
    if own is None and any(key in value for key in _ARGUMENTS):
        own = value.get("tool_name")  # Command R
    return own if isinstance(own, str) else None


def _arguments(value: dict[str, Any], name: str, named_before: bool) -> dict[str, Any] | None:
    """The arguments inside of ``value``; None if there is no sign of any, so that the object may
    be the arguments; ``_UNUSABLE`` if it is a call without usable arguments."""
    own = _own_name(value)
    if own is not None:
        for key in _ARGUMENTS:
            found = _as_object(value.get(key))
            if found is not None:
                return found
        if not named_before or name in own or any(key in value for key in _ARGUMENTS):
            return _UNUSABLE
        # The tool stands in front of the object: here ``name`` is one of its arguments.
    found = _as_object(value.get(name))
    if found is not None:
        return found
    for child in value.values():
        for item in child if isinstance(child, list) else (child,):
            if isinstance(item, dict) and _may_call(item, name):
                found = _arguments(item, name, named_before)
                if found is not None:
                    return found
    return None


def _may_call(value: dict[str, Any], name: str) -> bool:
    """Whether a nested object is more than an argument that happens to have a name."""
    own = _own_name(value)
    return own is None or name in own


def _as_object(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        return read_object(value)
    return value if isinstance(value, dict) else None
