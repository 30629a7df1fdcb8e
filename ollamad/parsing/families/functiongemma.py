"""functiongemma: ``<start_function_call>call:f{k:v}<end_function_call>`` between plain text.

Source: renderers-and-parsers.md 3.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ollamad.parsing.events import Call, Content, Event, ParserFactory
from ollamad.parsing.values import read_integer, read_number
from ollamad.parsing.withholding import first_tag, hold_tag
from ollamad.wire import Message, Think, Tool

START, END, QUOTE = "<start_function_call>", "<end_function_call>", "<escape>"

# A line break is taken as it is: it is ordinary in a text argument.
_CALL = re.compile(r"\s*call:\s*([^{\s]+)\s*\{(.*)\}\s*", re.DOTALL)
_PIECE = re.compile(r"<escape>.*?<escape>|[\[{]|[\]}]|,", re.DOTALL)
#: Deeper values stay text.
_MAX_DEPTH = 50


class FunctionGemma:
    """Text passes untrimmed; a call that cannot be read is text."""

    has_tools: ClassVar[bool] = True
    has_thinking: ClassVar[bool] = False
    preserved_tokens: ClassVar[tuple[str, ...]] = (START, END)

    def __init__(self) -> None:
        self._buffer = ""
        self._in_call = False

    def start(
        self, tools: Sequence[Tool], last: Message | None, think: Think | None
    ) -> Sequence[Tool]:
        """See ``Parser``: the tools as they are."""
        return tools

    def feed(self, text: str) -> list[Event]:
        """See ``Parser``."""
        self._buffer += text
        events: list[Event] = []
        while found := first_tag(self._buffer, (END if self._in_call else START,)):
            if not self._in_call:
                events.append(Content(found.before))
            elif call := _read_call(found.before):
                events.append(call)
            else:
                events.append(Content(START + found.before + END))
            self._buffer, self._in_call = found.after, not self._in_call
        if not self._in_call:
            show, self._buffer = hold_tag(self._buffer, (START,))
            events.append(Content(show))
        return [event for event in events if isinstance(event, Call) or event.text]

    def finish(self) -> list[Event]:
        """See ``Parser``."""
        rest = (START if self._in_call else "") + self._buffer
        self._buffer, self._in_call = "", False
        return [Content(rest)] if rest else []


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
