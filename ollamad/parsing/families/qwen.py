"""qwen3, qwen3-thinking, qwen3-vl-*, qwen3-coder, qwen3.5, ornith and nemotron-*.

``<think>…</think>``, text, ``<tool_call>…</tool_call>``. Source: renderers-and-parsers.md 3.1 to
3.4 and 3.10.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ollamad.parsing.events import Call, Content, Event, ParserFactory, Thinking
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.start import continues_answer
from ollamad.parsing.values import read_json
from ollamad.parsing.withholding import may_begin, remainder
from ollamad.parsing.xml_call import read_xml_calls
from ollamad.wire import Message, Think, Tool

_THINK, _THINK_END = "<think>", "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"


class QwenParser(StagedParser):
    """The stages; a model says how the answer begins and what stands between the call tags."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (_THINK, _THINK_END, _CALL, _CALL_END)
    #: One opening tag at the very start of the reasoning is dropped, with the whitespace around.
    drops_opening_tag: ClassVar[bool] = False
    #: Whitespace at the start of the reasoning is dropped even without an opening tag.
    drops_leading_space: ClassVar[bool] = False

    def starts_thinking(self, last: Message | None, think: Think | None) -> bool:
        """Whether the prompt has already opened the reasoning."""
        return think is not False and not continues_answer(last)

    @abstractmethod
    def read_calls(self, text: str, tools: Sequence[Tool]) -> list[Event]:
        """The events that ``text`` between the call tags is; ValueError if it is no call."""

    def _begin(self, last: Message | None, think: Think | None) -> None:
        if self.has_thinking and self.starts_thinking(last, think):
            self._stage = self._opening

    def _opening(self, done: bool) -> bool:
        """Before the reasoning's first character."""
        text = self._buffer.lstrip()
        if self.drops_opening_tag:
            if may_begin(text, (_THINK,)):
                if done:
                    self._say(Thinking, remainder(self._buffer))
                    self._buffer = ""
                return False
            if text.startswith(_THINK):
                self._buffer = text[len(_THINK) :]
                return self._go(self._thinking, skip_space=True)
        return self._go(self._thinking, skip_space=self.drops_leading_space)

    def _thinking(self, done: bool) -> bool:
        tag = self._stream(Thinking, (_THINK_END, _CALL), done)
        if tag == _CALL:
            self._gap = ""  # it was the reasoning's, not the content's
            return self._go(self._call)
        return tag is not None and self._go(self._content, skip_space=True)

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (_CALL,), done)
        return tag is not None and self._go(self._call)

    def _call(self, done: bool) -> bool:
        split = self._await((_CALL_END,))
        if split is None:
            if done:
                self._say(Content, self._gap + _CALL + remainder(self._buffer))
                self._buffer = ""
            return False
        self._buffer = split.after
        try:
            self._events += self.read_calls(split.before, self._tools)
        except ValueError:
            self._say(Content, self._gap + _CALL + split.before + _CALL_END)
            return self._go(self._content)
        return self._go(self._content, skip_space=True)


class Qwen3(QwenParser):
    """Calls are JSON objects with name and arguments; no reasoning."""

    def read_calls(self, text: str, tools: Sequence[Tool]) -> list[Event]:
        """See QwenParser.read_calls."""
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

    preserved_tokens: ClassVar[tuple[str, ...]] = (_THINK_END, _CALL, _CALL_END)


class Qwen3VlThinking(Qwen3Vl):
    """Reasoning from the start; unlike the reference's, not where it is off."""

    has_thinking: ClassVar[bool] = True


class Qwen3Coder(QwenParser):
    """Calls in the XML-like form; no reasoning."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (_CALL, _CALL_END)

    def read_calls(self, text: str, tools: Sequence[Tool]) -> list[Event]:
        """See QwenParser.read_calls."""
        return read_xml_calls(text, tools)


class Qwen35(Qwen3Coder):
    """Reasoning, then as qwen3-coder."""

    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = QwenParser.preserved_tokens
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
