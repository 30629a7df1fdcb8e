"""The text of one answer, as the runner gives it, to pieces for the client. Pure.

Which parsers read it: the model's named one, or those that its template calls for. Source:
prompting.md 1.6 item 12, 1.8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ollamad.parsing.events import Call, Content, Event, Parser, Thinking
from ollamad.parsing.stream import Piece
from ollamad.parsing.thinking import ThinkingParser
from ollamad.parsing.tool_calls import ToolCallParser
from ollamad.wire import Logprob, Message, Think, Tool, ToolCall, ToolCallFunction

#: Makes the id of a tool call.
NewId = Callable[[], str]


class AnswerParser:
    """Reads an answer: ``named`` if there is one, else ``thinking`` and then ``calls``."""

    def __init__(
        self,
        named: Parser | None = None,
        *,
        thinking: ThinkingParser | None = None,
        calls: ToolCallParser | None = None,
        preserved_tokens: Sequence[str] = (),
    ) -> None:
        self._named = named
        self._thinking = thinking
        self._calls = calls
        #: Special tokens that the runner must leave in the text.
        self.preserved_tokens = tuple(preserved_tokens)
        #: Whether anything but plain content can come out.
        self.is_plain = named is None and thinking is None and calls is None

    def feed(self, text: str) -> list[Event]:
        """The events that ``text`` completes, in the order of the text."""
        if self._named is not None:
            return self._named.feed(text)
        events: list[Event] = [Content(text)]
        if self._thinking is not None:
            events = self._thinking.feed(text)
        return self._through_calls(events)

    def finish(self) -> list[Event]:
        """The events of text that was withheld until now."""
        if self._named is not None:
            return self._named.finish()
        events = self._thinking.finish() if self._thinking is not None else []
        events = self._through_calls(events)
        if self._calls is not None:
            events += self._calls.finish()
        return events

    def _through_calls(self, events: list[Event]) -> list[Event]:
        if self._calls is None:
            return events
        out: list[Event] = []
        for event in events:
            if isinstance(event, Content):
                out += self._calls.feed(event.text)
            else:
                out.append(event)
        return out


def generic_parser(
    prompt: str,
    *,
    thinking_tags: tuple[str, str],
    think: Think | None,
    tool_tag: str,
    tools: Sequence[Tool],
) -> AnswerParser:
    """The parser of a model without a named one, for the answer to ``prompt``.

    Reasoning is looked for only when it was asked for, calls only when there are tools.
    """
    opening, closing = thinking_tags
    thinking = None
    if think and opening and closing:
        thinking = ThinkingParser(opening, closing)
        if prompt.strip().endswith(opening):
            thinking.assume_open()
    calls = ToolCallParser(tool_tag, tools) if tools else None
    preserved = _special_token(tool_tag) if tools else ()
    return AnswerParser(thinking=thinking, calls=calls, preserved_tokens=preserved)


def named_parser(
    parser: Parser, tools: Sequence[Tool], last: Message | None, think: Think | None
) -> tuple[AnswerParser, Sequence[Tool]]:
    """The named parser made ready for an answer, and the tools as the prompt shall name them."""
    renamed = parser.start(tools, last, think)
    return AnswerParser(parser, preserved_tokens=parser.preserved_tokens), renamed


def _special_token(tag: str) -> tuple[str, ...]:
    """What of a tool tag may be a special token (prompting.md 1.7)."""
    if tag in ("", "{", "["):
        return ()
    closing = {"[": "]", "<": ">"}.get(tag[0])
    if closing is not None and closing in tag:
        return (tag[: tag.index(closing) + 1],)
    return (tag,)


class Pieces:
    """Makes pieces of events: what can leave together does, in the model's order."""

    def __init__(self, new_id: NewId) -> None:
        self._new_id = new_id
        self._calls = 0

    def of(self, events: Sequence[Event], logprobs: list[Logprob] | None = None) -> list[Piece]:
        """Pieces for ``events``; ``logprobs`` travel with the first one, or alone."""
        pieces: list[Piece] = []
        for event in events:
            piece = pieces[-1] if pieces else None
            if isinstance(event, Call):
                if piece is None:
                    pieces.append(piece := Piece())
                piece.tool_calls = [*(piece.tool_calls or ()), self._call(event)]
            elif not event.text:
                continue
            elif isinstance(event, Thinking):
                if piece is None or piece.content or piece.tool_calls:
                    pieces.append(piece := Piece())
                piece.thinking += event.text
            else:
                if piece is None or piece.tool_calls:
                    pieces.append(piece := Piece())
                piece.content += event.text
        if logprobs:
            if not pieces:
                pieces.append(Piece())
            pieces[0].logprobs = logprobs
        return pieces

    def _call(self, call: Call) -> ToolCall:
        index = self._calls
        self._calls += 1
        return ToolCall(
            id=self._new_id(),
            function=ToolCallFunction(index=index, name=call.name, arguments=call.arguments),
        )


class ConstraintPoint:
    """Finds where an answer begins that must have a format, after reasoning and instead of calls.

    The grammar of a format would forbid the reasoning and the calls before the answer. So the model
    first runs free; where its answer begins it is stopped and goes on from there with the grammar.
    """

    def __init__(self) -> None:
        self._raw: list[str] = []
        self._called = False
        #: The raw text before the answer, once that has begun.
        self.prefix: str | None = None

    @property
    def raw(self) -> str:
        """All text until now."""
        return "".join(self._raw)

    def feed(self, text: str, events: Sequence[Event]) -> list[Event]:
        """``events`` of ``text`` as far as they come before the answer.

        ``prefix`` is set when that has begun. After a tool call there is none to wait for.
        """
        self._raw.append(text)
        before: list[Event] = []
        for event in events:
            if isinstance(event, Content) and not self._called:
                if not event.text.strip():
                    continue
                raw = self.raw
                at = raw.rfind(event.text)
                self.prefix = raw[: at if at >= 0 else len(raw) - len(text)]
                break
            self._called = self._called or isinstance(event, Call)
            before.append(event)
        return before
