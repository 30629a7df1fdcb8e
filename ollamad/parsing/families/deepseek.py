"""deepseek3 and cogito. Pure. Source: renderers-and-parsers.md 3.7, 3.8.

Unlike the reference: split tags do not leak; a call that does not parse, and what stands between
the calls, is content; cogito thinks with tools too (its prompt ends with ``<think>``) and gives
tool outputs that it makes up as content.
"""

from __future__ import annotations

from typing import ClassVar

from ollamad.parsing.call_objects import read_object
from ollamad.parsing.events import Call, Content, ParserFactory, Thinking
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.start import continues_answer, thinking_is_on
from ollamad.wire import Message, Think

_THINK_END = "</think>"
_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEPARATOR = "<｜tool▁sep｜>"
_OUTPUTS, _OUTPUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
_OUTPUT, _OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"
_FENCE = "```"


class DeepseekParser(StagedParser):
    """Thinking up to ``</think>`` if it is on, then content and blocks of calls."""

    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = (
        _THINK_END,
        _CALLS,
        _CALLS_END,
        _CALL,
        _CALL_END,
        _SEPARATOR,
        _OUTPUT,
        _OUTPUT_END,
    )

    def _begin(self, last: Message | None, think: Think | None) -> None:
        if thinking_is_on(think) and not continues_answer(last):
            self._stage = self._thinking

    def _thinking(self, done: bool) -> bool:
        if self._stream(Thinking, (_THINK_END,), done):
            return self._go(self._content, skip_space=True)
        return False

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (_CALLS, _OUTPUT), done, loose=(_OUTPUT,))
        if tag == _CALLS:
            return self._go(self._calls, skip_space=True)
        return tag is not None and self._go(self._output)

    def _output(self, done: bool) -> bool:
        if self._stream(Content, (_OUTPUT_END,), done, loose=(_OUTPUT_END,)):
            return self._go(self._content)
        return False

    def _calls(self, done: bool) -> bool:
        tag = self._stream(Content, (_CALL, _CALLS_END), done)
        if tag == _CALL:
            return self._go(self._call)
        return tag is not None and self._go(self._content, skip_space=True)

    def _call(self, done: bool) -> bool:
        split = self._await((_CALL_END, _CALL, _CALLS_END))
        if split is None and not done:
            return False
        text = split.before if split else self._buffer
        closed = split is not None and split.tag == _CALL_END
        call = self._read(text) if closed else None
        if call is not None:
            self._events.append(call)
        elif text.strip():
            self._say(Content, _CALL + text + _CALL_END * closed)
        if split is None:
            self._buffer = ""
            return False
        self._buffer = split.after if closed else split.tag + split.after
        return self._go(self._calls, skip_space=True)

    def _read(self, text: str) -> Call | None:
        name, _, arguments = text.partition(_SEPARATOR)
        return _call(name, arguments)


class CogitoParser(DeepseekParser):
    """As deepseek3, but calls are fenced and tool outputs are grouped."""

    preserved_tokens: ClassVar[tuple[str, ...]] = (
        *DeepseekParser.preserved_tokens,
        _OUTPUTS,
        _OUTPUTS_END,
    )

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (_CALLS, _OUTPUTS), done)
        return tag is not None and self._go(
            self._calls if tag == _CALLS else self._output, skip_space=True
        )

    def _output(self, done: bool) -> bool:
        tag = self._stream(Content, (_OUTPUT, _OUTPUT_END, _OUTPUTS_END), done)
        return tag is not None and self._go(
            self._content if tag == _OUTPUTS_END else self._output, skip_space=True
        )

    def _read(self, text: str) -> Call | None:
        kind, _, rest = text.partition(_SEPARATOR)
        if kind.strip() != "function":
            return super()._read(text)
        name, opened, fenced = rest.strip().partition(_FENCE)
        if not opened or not fenced.endswith(_FENCE):
            return None
        return _call(name, fenced.removeprefix("json").removesuffix(_FENCE))


def _call(name: str, arguments: str) -> Call | None:
    value = read_object(arguments)
    return Call(name.strip(), value) if name.strip() and value is not None else None


PARSERS: dict[str, ParserFactory] = {"deepseek3": DeepseekParser, "cogito": CogitoParser}
