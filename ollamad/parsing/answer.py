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
        closing_tag: str = "",
    ) -> None:
        self._named = named
        self._thinking = thinking
        self._calls = calls
        #: Special tokens that the runner must leave in the text.
        self.preserved_tokens = tuple(preserved_tokens)
        #: What ends the reasoning, ``""`` where only the named parser knows.
        self.closing_tag = closing_tag
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
    return AnswerParser(
        thinking=thinking, calls=calls, preserved_tokens=preserved, closing_tag=closing
    )


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


#: Tokens that a model may say before a tool call when its answer must have a format. Longer text is
#: taken for the answer itself.
MAX_PREAMBLE = 64

#: What ends the reasoning in the formats of named parsers.
_CLOSING_TAGS = ("</think>", "<channel|>", "<|END_THINKING|>", "[/THINK]")


class ConstraintPoint:
    """Finds where an answer begins that must have a format, after reasoning and instead of calls.

    The grammar of a format would forbid the reasoning and the calls before the answer. So the model
    first runs free; where its answer begins it is stopped and goes on from there with the grammar.
    ``may_call``: there are tools, so a little text is waited through, for a call may follow it.
    """

    def __init__(self, parser: AnswerParser, *, may_call: bool) -> None:
        self._parser = parser
        self._may_call = may_call
        self._raw = ""
        self._held: list[Event] = []
        self._start: int | None = None
        self._preamble = 0
        self._reasoned = False
        self.called = False
        #: The raw text before the answer, once that has begun.
        self.prefix: str | None = None

    def feed(self, text: str) -> list[Event]:
        """What of ``text`` goes out before the answer; ``prefix`` is set when that has begun.

        After a tool call all goes out: there is no answer to wait for.
        """
        out: list[Event] = []
        # One by one, so that content is known at the character that ends the raw text.
        for character in text:
            self._raw += character
            for event in self._parser.feed(character):
                out += self._sorted(event)
            if self.prefix is not None:
                return out
        if self._start is not None and not self.called:
            self._preamble += 1
            if self._preamble > MAX_PREAMBLE:
                self._begin(self._start)
        return out

    def finish(self, *, stopped: bool) -> list[Event]:
        """The end of the free run. ``stopped``: the model had nothing more to say.

        Without a call an answer is then still due, and ``prefix`` says from where.
        """
        out = [kept for event in self._parser.finish() for kept in self._sorted(event)]
        if self.called or self.prefix is not None:
            return out
        if self._start is not None:
            self._begin(self._start)
        elif stopped:
            self.prefix = self._raw + self._closing()
        return out

    def give_up(self) -> list[Event]:
        """All that was withheld: no answer follows any more."""
        return [*self._held, *self._parser.finish()]

    def _sorted(self, event: Event) -> list[Event]:
        if self.called or self.prefix is not None:
            return [event] if self.called else []
        if isinstance(event, Call):
            self.called = True
            return [*self._held, event]
        if self._start is None:
            if isinstance(event, Thinking):
                self._reasoned = True
                return [event]
            if not event.text.strip():
                return []
            # What was withheld until now comes out with the character that decides it.
            self._start = max(self._raw.rfind(event.text), 0)
        self._held.append(event)
        if not self._may_call:
            self._begin(self._start)
        return []

    def _begin(self, start: int) -> None:
        self.prefix = self._raw[:start]
        self._held = []

    def _closing(self) -> str:
        """What has to follow the reasoning before an answer can begin."""
        if not self._reasoned:
            return ""
        tokens = self._parser.preserved_tokens
        if "<|channel|>" in tokens:
            end = "" if self._raw.rstrip().endswith("<|end|>") else "<|end|>"
            return f"{end}<|start|>assistant<|channel|>final<|message|>"
        closing = self._parser.closing_tag or next((t for t in _CLOSING_TAGS if t in tokens), "")
        return "" if closing in self._raw else closing
