"""qwen3, qwen3-thinking, qwen3-vl-*, qwen3-coder, qwen3.5, ornith and nemotron-*.

Source: renderers-and-parsers.md 3.1 to 3.4 and 3.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ollamad.parsing.events import Call, Event, ParserFactory
from ollamad.parsing.families.tagged import CALL, CALL_END, THINK_END, TaggedParser
from ollamad.parsing.values import read_json
from ollamad.parsing.xml_call import read_xml_calls
from ollamad.wire import Message, Think, Tool


class Qwen3(TaggedParser):
    """Calls are JSON objects with name and arguments; no reasoning."""

    def read_calls(self, text: str, tools: Sequence[Tool]) -> list[Event]:
        """See ``TaggedParser``."""
        call = read_json(text)
        name = call.get("name") if isinstance(call, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError("empty function name")
        # Small models take the second key from the tool's declaration.
        arguments = call.get("arguments", call.get("parameters"))
        if arguments is None and call.keys() <= {"name", "arguments", "parameters", "id", "type"}:
            arguments = {}
        if not isinstance(arguments, dict):
            raise ValueError("failed to parse JSON: no object of arguments")
        return [Call(name, arguments)]


class Qwen3Thinking(Qwen3):
    """Reasoning from the start, unless it is off."""

    has_thinking: ClassVar[bool] = True
    drops_opening_tag: ClassVar[bool] = True

    def starts_thinking(self, last: Message | None, think: Think | None) -> bool:
        """A prefilled answer does not matter here."""
        return think is not False


class Qwen3Vl(Qwen3):
    """``<think>`` is plain text."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (THINK_END, CALL, CALL_END)


class Qwen3VlThinking(Qwen3Vl):
    """Reasoning from the start; unlike the reference's, not where it is off."""

    has_thinking: ClassVar[bool] = True


class Qwen3Coder(TaggedParser):
    """Calls in the XML-like form; no reasoning."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (CALL, CALL_END)

    def read_calls(self, text: str, tools: Sequence[Tool]) -> list[Event]:
        """See ``TaggedParser``."""
        return read_xml_calls(text, tools)


class Qwen35(Qwen3Coder):
    """Reasoning, then as qwen3-coder."""

    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = TaggedParser.preserved_tokens
    drops_opening_tag: ClassVar[bool] = True


class Nemotron(Qwen35):
    """As qwen3.5; whitespace before the reasoning is dropped too."""

    drops_leading_space: ClassVar[bool] = True


PARSERS: Mapping[str, ParserFactory] = {
    "qwen3": Qwen3,
    "qwen3-thinking": Qwen3Thinking,
    "qwen3-vl-instruct": Qwen3Vl,
    "qwen3-vl-thinking": Qwen3VlThinking,
    "qwen3-coder": Qwen3Coder,
    "qwen3.5": Qwen35,
    "ornith": Qwen35,
    "nemotron-3-nano": Nemotron,
    "nemotron-3.5-nano": Nemotron,
}
