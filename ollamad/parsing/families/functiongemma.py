"""functiongemma: ``<start_function_call>call:f{k:v}<end_function_call>`` between plain text.

Source: renderers-and-parsers.md 3.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ollamad.parsing.events import Call, Content, ParserFactory
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.values import read_integer, read_number

START, END, QUOTE = "<start_function_call>", "<end_function_call>", "<escape>"

# A line break is taken as it is: it is ordinary in a text argument.
_CALL = re.compile(r"\s*call:\s*([^{\s]+)\s*\{(.*)\}\s*", re.DOTALL)
_PIECE = re.compile(r"<escape>.*?<escape>|[\[{]|[\]}]|,", re.DOTALL)
#: Deeper values stay text.
_MAX_DEPTH = 50


class FunctionGemma(StagedParser):
    """Text passes untrimmed; a call that cannot be read is text."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (START, END)

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (START,), done, loose=(START,))
        return tag is not None and self._go(self._call)

    def _call(self, done: bool) -> bool:
        split = self._await((END,))
        if split is None:
            if done:
                self._say(Content, START + self._buffer)
                self._buffer = ""
            return False
        self._buffer = split.after
        call = _read_call(split.before)
        self._events.append(call or Content(START + split.before + END))
        return self._go(self._content)


def _read_call(text: str) -> Call | None:
    match = _CALL.fullmatch(text)
    if not match:
        return None
    arguments = _read_object(match[2], _MAX_DEPTH)
    return None if arguments is None else Call(match[1], arguments)


def _read_object(text: str, depth: int) -> dict[str, Any] | None:
    """Arguments by name; None where a part has no name."""
    arguments: dict[str, Any] = {}
    for part in _parts(text):
        key, colon, value = part.partition(":")
        if not colon:
            return None
        arguments[_unquoted(key.strip())] = _read_value(value.strip(), depth)
    return arguments


def _read_value(text: str, depth: int) -> Any:
    if text.count(QUOTE) == 2 and text.startswith(QUOTE) and text.endswith(QUOTE):
        return _unquoted(text)
    if text in ("true", "false"):
        return text == "true"
    if (integer := read_integer(text)) is not None:
        return integer
    if (number := read_number(text)) is not None:
        return number
    if depth and text.startswith("[") and text.endswith("]"):
        return [_read_value(part.strip(), depth - 1) for part in _parts(text[1:-1])]
    if depth and text.startswith("{") and text.endswith("}"):
        fields = _read_object(text[1:-1], depth - 1)
        if fields is not None:
            return fields
    return text


def _unquoted(text: str) -> str:
    return text.removeprefix(QUOTE).removesuffix(QUOTE)


def _parts(text: str) -> Iterator[str]:
    """``text`` split at the commas outside of quotes and brackets; blank parts left out."""
    depth = start = 0
    for piece in _PIECE.finditer(text):
        if piece[0] in "[{":
            depth += 1
        elif piece[0] in "]}":
            depth -= 1
        elif piece[0] == "," and depth == 0:
            if text[start : piece.start()].strip():
                yield text[start : piece.start()]
            start = piece.end()
    if text[start:].strip():
        yield text[start:]


PARSERS: Mapping[str, ParserFactory] = {"functiongemma": FunctionGemma}
