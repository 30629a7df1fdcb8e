"""Tool calls in an answer, behind the tag that the model's template puts before them. Pure.

For models without a parser of their own. A call is a JSON object that names a tool, or a tool's
name and the JSON object of its arguments. The same events come out however the text is cut: a call
is decided where its object ends, by the text up to there. What does not make a call comes out as
content with its tags; after a call closing markup is dropped and other text is content.
Source: prompting.md 8.2 to 8.5.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto

from ollamad.parsing.call_objects import ObjectScanner, call_of, first_name
from ollamad.parsing.events import Content, Event
from ollamad.parsing.withholding import may_begin, up_to_tag
from ollamad.wire import Tool

#: Characters between a tag and its object, so that text behind a stray tag is not held for long.
_MAX_HEADER = 512
#: More words than these before an object are prose, not a call's syntax (``function``, ``json``).
_HEADER_WORDS = 2

_MARKUP = re.compile(r"</?[^\s<>]{1,64}>|\[/[^\s\[\]]{1,64}\]")
_OPEN_MARKUP = re.compile(r"<(?:/?[^\s<>]{0,64})?|\[(?:/[^\s\[\]]{0,64})?")
_CLOSING = re.compile(r"</|\[/|<[|｜](?:/|.*(?:end|eo[mst]))", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[,;)\]}]+")
_FENCE = "```"
_WORD = re.compile(r"[^\W_]+")


class _State(Enum):
    #: No tag yet: text is content.
    SEEKING = auto()
    #: From a tag on, until an object ends.
    IN_CALL = auto()
    #: Behind an object: markup, another call, or text.
    AFTER = auto()
    #: No calls any more: everything is content.
    DONE = auto()


class ToolCallParser:
    """Finds the calls to ``tools`` in one answer. ``tag`` is the template's tool tag.

    The tags ``{`` and ``[`` count only as the very first character that is not blank.
    """

    def __init__(self, tag: str, tools: Sequence[Tool]) -> None:
        self._tag = tag or "{"
        self._bare = self._tag in ("{", "[")
        self._names = tuple(dict.fromkeys(t.function.name for t in tools if t.function.name))
        self._state = _State.SEEKING if self._names else _State.DONE
        self._buffer = ""
        self._scanner: ObjectScanner | None = None
        #: In IN_CALL: how much of the buffer is the tag.
        self._opening = 0
        #: In AFTER: whether a call came before, so that its closing markup is dropped.
        self._called = False
        self._spoke = False

    def feed(self, text: str) -> list[Event]:
        """The events that ``text`` completes. Never raises."""
        self._buffer += text
        events: list[Event] = []
        steps = {
            _State.SEEKING: self._seek,
            _State.IN_CALL: self._call,
            _State.AFTER: self._after,
            _State.DONE: self._pass_on,
        }
        while self._buffer and steps[self._state](events):
            pass
        return events

    def finish(self) -> list[Event]:
        """The answer has ended: a call that is not complete is content, half a closing tag is
        dropped."""
        kept, self._buffer = self._buffer, ""
        if self._state is _State.AFTER and self._called:
            kept = "" if self._is_closing(kept) else self._beginning(kept)
        events: list[Event] = []
        self._say(kept, events)
        return events

    # Each step takes something from the buffer and returns True, or waits and returns False.

    def _seek(self, events: list[Event]) -> bool:
        if self._bare:
            text = self._buffer.lstrip()
            self._say(self._buffer[: len(self._buffer) - len(text)], events)
            self._buffer = text
            if not text:
                return False
            if text.startswith(self._tag):
                self._enter(len(self._tag) if self._tag == "[" else 0)
            else:
                self._state = _State.DONE
            return True
        split = up_to_tag(self._buffer, (self._tag,))
        self._say(split.before, events)
        self._buffer = split.tag + split.after
        if not split.tag:
            return False
        self._enter(len(split.tag))
        return True

    def _call(self, events: list[Event]) -> bool:
        if self._scanner is None:
            return self._find_object(events)
        end = self._scanner.end(self._buffer)
        if end is None:
            return False
        header = self._buffer[self._opening : self._scanner.start]
        call = call_of(header, self._buffer[self._scanner.start : end], self._names)
        if call is None and self._bare:
            self._give_up(end, events)
            return True
        if call is None:
            self._say(self._buffer[:end], events)
        else:
            self._say(self._prose(header), events)
            events.append(call)
        self._buffer = self._buffer[end:]
        self._called = call is not None
        self._state = _State.AFTER
        return True

    def _find_object(self, events: list[Event]) -> bool:
        start = self._buffer.find("{", self._opening)
        header = self._buffer[: start if start >= 0 else None]
        behind = max(1, self._opening)
        again = -1 if self._bare else header.find(self._tag, behind)
        if again > 0:
            # The tag before this one was only text.
            self._give_up(again, events)
        elif (self._bare and "]" in header) or len(header) > self._opening + _MAX_HEADER:
            self._give_up(behind, events)
        elif start >= 0:
            self._scanner = ObjectScanner(start)
        else:
            return False
        return True

    def _after(self, events: list[Event]) -> bool:
        text = self._buffer.lstrip()
        blank = len(self._buffer) - len(text)
        if not text:
            return False
        if text.startswith("{"):
            return self._open_again(blank, 0, events)
        if not self._bare and text.startswith(self._tag):
            return self._open_again(blank, len(self._tag), events)
        if not self._bare and may_begin(text, (self._tag,)):
            return False
        if (closing := _PUNCTUATION.match(text)) is not None:
            return self._drop(blank + closing.end(), events)
        if text.startswith(_FENCE):
            if len(text) == len(_FENCE):
                return False
            if not text[len(_FENCE)].isalnum():
                return self._drop(blank + len(_FENCE), events)
        elif may_begin(text, (_FENCE,)):
            return False
        if (markup := _MARKUP.match(text)) is not None:
            if _CLOSING.match(markup[0]):
                return self._drop(blank + markup.end(), events)
            return self._open_again(blank, 0, events)
        if _OPEN_MARKUP.fullmatch(text) is not None:
            return False
        if any(text.startswith(name) for name in self._names):
            return self._open_again(blank, 0, events)
        if may_begin(text, self._names):
            return False
        if self._called:
            self._buffer = self._beginning(self._buffer)
        self._state = _State.DONE if self._bare else _State.SEEKING
        return True

    def _pass_on(self, events: list[Event]) -> bool:
        self._say(self._buffer, events)
        self._buffer = ""
        return False

    def _enter(self, opening: int) -> None:
        self._state = _State.IN_CALL
        self._opening = opening
        self._scanner = None

    def _open_again(self, blank: int, opening: int, events: list[Event]) -> bool:
        self._drop(blank, events)
        self._enter(opening)
        return True

    def _drop(self, length: int, events: list[Event]) -> bool:
        """Drop what closes a call; behind something that was no call it is content."""
        if not self._called:
            self._say(self._buffer[:length], events)
        self._buffer = self._buffer[length:]
        return True

    def _give_up(self, length: int, events: list[Event]) -> None:
        """The first ``length`` characters, tag and all, were only text."""
        self._say(self._buffer[:length], events)
        self._buffer = self._buffer[length:]
        self._state = _State.DONE if self._bare else _State.SEEKING

    def _prose(self, header: str) -> str:
        """What a model said between the tag and its call."""
        text = _MARKUP.sub(" ", header).replace(_FENCE, " ")
        name = first_name(text, self._names)
        words = _WORD.findall(text if name is None else text.replace(name, " ", 1))
        return text if len(words) > _HEADER_WORDS else ""

    def _beginning(self, text: str) -> str:
        """``text`` behind a call; blanks in front of it only part it from text before the call."""
        return text if self._spoke else text.lstrip()

    def _is_closing(self, text: str) -> bool:
        text = text.strip()
        return not text or text.startswith(("</", "[/", "<|", "<｜")) or not text.strip("`")

    def _say(self, text: str, events: list[Event]) -> None:
        if text:
            events.append(Content(text))
            self._spoke = self._spoke or not text.isspace()
