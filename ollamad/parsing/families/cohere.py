"""cohere. Pure. Source: renderers-and-parsers.md 3.15.

Unlike the reference: tags count in the order in which they stand, text outside of them is content
too, and so is what is no call in a list of actions.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ollamad.parsing.call_objects import ObjectScanner, read_object
from ollamad.parsing.events import Call, Content, Event, ParserFactory, Thinking
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.start import continues_answer
from ollamad.parsing.values import read_json
from ollamad.wire import Message, Think

_THINK, _THINK_END = "<|START_THINKING|>", "<|END_THINKING|>"
_TEXT, _TEXT_END = "<|START_TEXT|>", "<|END_TEXT|>"
_RESPONSE, _RESPONSE_END = "<|START_RESPONSE|>", "<|END_RESPONSE|>"
_ACTION, _ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
_TURN_END = "<|END_OF_TURN_TOKEN|>"
_TEXT_TAGS = (_TEXT, _RESPONSE, _ACTION, _TEXT_END, _RESPONSE_END, _TURN_END)

_KEYS = {"tool_call_id", "tool_name", "parameters"}


class CohereParser(StagedParser):
    """Thinking from the start unless it is off, then texts and lists of actions."""

    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = (
        _THINK,
        _THINK_END,
        _TEXT,
        _TEXT_END,
        _ACTION,
        _ACTION_END,
        _RESPONSE,
        _RESPONSE_END,
    )

    def _begin(self, last: Message | None, think: Think | None) -> None:
        if continues_answer(last):
            return
        if think is False:
            self._go(self._content, skip_space=True)
        else:
            self._stage = self._thinking

    def _thinking(self, done: bool) -> bool:
        if self._stream(Thinking, (_THINK_END,), done):
            return self._go(self._content, skip_space=True)
        return False

    def _content(self, done: bool) -> bool:
        tag = self._stream(Content, _TEXT_TAGS, done, loose=_TEXT_TAGS)
        if tag is None:
            return False
        if tag == _ACTION:
            return self._go(self._action)
        return self._go(self._content, skip_space=tag not in (_TEXT, _RESPONSE))

    def _action(self, done: bool) -> bool:
        split = self._await((_ACTION_END,))
        if split is None and not done:
            return False
        text = split.before if split else self._buffer
        self._buffer = split.after if split else ""
        events = _read(text)
        if all(isinstance(event, Content) for event in events):
            # A list without calls is given as it was written.
            events = [Content(_ACTION + text + _ACTION_END * bool(split))] if events else []
        self._events += events
        return split is not None and self._go(self._content, skip_space=True)


def _read(text: str) -> list[Event]:
    """The calls of a list of actions, and what it holds besides."""
    try:
        value = read_json(text)
    except ValueError:
        value = None
    if isinstance(value, list):
        calls = [_call(item) for item in value]
        if None not in calls:
            return [call for call in calls if call is not None]
    return _read_objects(text)


def _read_objects(text: str) -> list[Event]:
    """Every balanced object of ``text`` on its own."""
    events: list[Event] = []
    at = 0
    while (start := text.find("{", at)) >= 0:
        end = ObjectScanner(start).end(text)
        if end is None:
            break
        call = _call(read_object(text[start:end]))
        events += _text(text[at:start])
        events += [call] if call else [Content(text[start:end])]
        at = end
    return events + _text(text[at:])


def _text(text: str) -> list[Event]:
    """What of ``text`` is more than the punctuation of a list."""
    rest = text.strip("[], \t\r\n")
    return [Content(rest)] if rest else []


def _call(value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    name, parameters = value.get("tool_name"), value.get("parameters")
    if not value.keys() <= _KEYS or not str(value.get("tool_call_id", "")).isascii():
        return None  # something that would be lost
    if parameters is None:
        parameters = {}
    if not isinstance(name, str) or not name or not isinstance(parameters, dict):
        return None
    return Call(name, parameters)


PARSERS: dict[str, ParserFactory] = {"cohere": CohereParser}
