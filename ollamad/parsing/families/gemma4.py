"""gemma4: reasoning in ``<|channel>thought``, calls in ``<|tool_call>``, text between.

Source: renderers-and-parsers.md 3.5 (parser). Unlike the reference, whitespace around tags goes
however the text was cut, and the tag that begins first counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ollamad.parsing.events import Content, ParserFactory, Thinking
from ollamad.parsing.families.gemma4_call import QUOTE, read_call
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.start import thinking_is_on
from ollamad.parsing.withholding import may_begin, partial_tag
from ollamad.wire import Message, Think

CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
CALL, CALL_END, RESPONSE = "<|tool_call>", "<tool_call|>", "<|tool_response>"
_CHANNEL_NAME = "thought\n"


class Gemma4(StagedParser):
    """Reasoning is given if it is on, otherwise dropped."""

    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = (
        CHANNEL,
        CHANNEL_END,
        CALL,
        CALL_END,
        RESPONSE,
        QUOTE,
    )
    keeps_last_space: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._shows_thinking = False

    def _begin(self, last: Message | None, think: Think | None) -> None:
        self._shows_thinking = self.has_thinking and thinking_is_on(think)
        if self._shows_thinking and last is not None and last.role == "tool":
            # The prompt ends inside the channel, after its name.
            self._stage = self._thinking

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, (CHANNEL, CALL), done)
        return tag is not None and self._go(self._call if tag == CALL else self._channel_name)

    def _channel_name(self, done: bool) -> bool:
        if not done and may_begin(self._buffer, (_CHANNEL_NAME,)):
            return False
        self._buffer = self._buffer.removeprefix(_CHANNEL_NAME)
        return self._go(self._thinking)

    def _thinking(self, done: bool) -> bool:
        said = len(self._events)
        closed = self._stream(Thinking, (CHANNEL_END,), done) is not None
        if not self._shows_thinking:
            del self._events[said:]
        return closed and self._go(self._content, skip_space=True)

    def _call(self, done: bool) -> bool:
        split = self._await((CALL_END,))
        if split is None:
            if done:
                # Not closed, it counts if it can be read.
                text = self._buffer[: len(self._buffer) - partial_tag(self._buffer, (CALL_END,))]
                raw = Content(self._gap + CALL + self._buffer)
                self._events.append(read_call(text, self._tools) or raw)
                self._buffer = ""
            return False
        self._buffer = split.after
        call = read_call(split.before, self._tools)
        self._events.append(call or Content(self._gap + CALL + split.before + CALL_END))
        return self._go(self._after_call, skip_space=call is not None)

    def _after_call(self, done: bool) -> bool:
        """Closing tags without a call, and the response's that the model is not to write."""
        for tag in (CALL_END, RESPONSE):
            if self._buffer.startswith(tag):
                self._buffer = self._buffer[len(tag) :]
                return self._go(self._after_call, skip_space=True)
        if not done and may_begin(self._buffer, (CALL_END, RESPONSE)):
            return False
        return self._go(self._content)


class Gemma4NoThinking(Gemma4):
    """Reasoning is always dropped."""

    has_thinking: ClassVar[bool] = False


PARSERS: Mapping[str, ParserFactory] = {"gemma4": Gemma4, "gemma4-no-thinking": Gemma4NoThinking}
