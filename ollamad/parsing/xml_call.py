"""X: the call ``<function=f><parameter=a>5</parameter></function>`` between a model's tool tags.

Only the function and parameter tags are markup, everything else is text: not XML. Pure.

Unlike the reference, which leaves it out, this gives the text beside the call as content and a
second function element as a second call; and it changes nothing inside a value (the reference
makes ``<b name="c">`` of ``<b=c>``). Source: renderers-and-parsers.md 1.8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ollamad.parsing.events import Call, Content, Event
from ollamad.parsing.values import coerce, property_types
from ollamad.wire import Tool

_TAG = re.compile(
    r'<(?P<open>function|parameter)(?:=(?P<bare>[^>"]{1,1000})| name="(?P<quoted>[^"]*)")?>'
    r"|</(?P<close>function|parameter)>"
)
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_xml_calls(text: str, tools: Sequence[Tool]) -> list[Event]:
    """The calls in ``text`` and, where it stood, text that is none of their arguments.

    ``tools`` give the types of the arguments; the name need not be theirs. Raises ValueError with
    the reference's message if ``text`` does not begin with a well-formed call (after other text).
    """
    events: list[Event] = []
    end = 0
    while True:
        try:
            element = _Element(text, end, tools)
        except ValueError:
            if not events:
                raise
            # After a good call, what is no call is text beside it.
            return events + _content(text[end:])
        events += _content("".join(element.beside))
        events.append(Call(element.name, element.arguments))
        end = element.end


def _content(text: str) -> list[Event]:
    return [Content(text)] if text.strip() else []


class _Element:
    """The first function element of ``text`` from ``start`` on; raises ValueError without one."""

    name: str
    arguments: dict[str, Any]
    beside: list[str]  # text before the element, or in it but in none of its parameters
    end: int

    def __init__(self, text: str, start: int, tools: Sequence[Tool]) -> None:
        self.arguments = {}
        self.beside = []
        opened: list[str] = []
        key, value = "", ""
        at = start
        for tag in _TAG.finditer(text, start):
            between = text[at : tag.start()]
            if bad := _ILLEGAL.search(between):
                place = at + bad.start()
                raise _syntax_error(text, place, f"illegal character code U+{ord(bad[0]):04X}")
            at = tag.end()
            if opened == ["function", "parameter"]:
                value += between
            else:
                self.beside.append(between)
            if kind := tag["open"]:
                name = tag["bare"] or tag["quoted"] or ""
                if not opened:
                    if kind != "function":
                        raise ValueError(f"expected element type <function> but have <{kind}>")
                    if not name:
                        raise ValueError("empty function name")
                    self.name = name
                opened.append(kind)
                if opened == ["function", "parameter"]:
                    key, value = name, ""
                continue
            kind = tag["close"]
            if not opened:
                raise _syntax_error(text, at, f"unexpected end element </{kind}>")
            if opened[-1] != kind:
                problem = f"element <{opened[-1]}> closed by </{kind}>"
                raise _syntax_error(text, at, problem)
            if opened == ["function", "parameter"]:
                value = value.replace("\r\n", "\n").replace("\r", "\n")
                self.arguments[key] = coerce(value, property_types(tools, self.name, key))
            opened.pop()
            if not opened:
                self.end = at
                return
        if not opened:
            raise ValueError("EOF")
        raise _syntax_error(text, len(text), "unexpected EOF")


def _syntax_error(text: str, at: int, problem: str) -> ValueError:
    line = text.count("\n", 0, at) + 1
    return ValueError(f"XML syntax error on line {line}: {problem}")
