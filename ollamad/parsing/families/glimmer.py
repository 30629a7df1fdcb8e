"""glimmer. Pure. Source: renderers-and-parsers.md 3.16.

Unlike the reference: a block that is no call of the recipient is content, and so is the text around
a block in a message to a tool.
"""

from __future__ import annotations

import re
from typing import ClassVar

from ollamad.parsing.events import Call, Content, ParserFactory, Thinking
from ollamad.parsing.families.glimmer_call import (
    BLOCK,
    BLOCK_END,
    addressed_tool,
    arguments_of,
    read_block,
)
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.withholding import may_begin, partial_tag
from ollamad.wire import Message, Think

_START, _MESSAGE = "<|start|>assistant", "<|message|>"
_ENDS = ("<|eom|>", "<|eot|>")
#: Where a body ends: at a terminator or at the header of the next message.
_END = re.compile(r"<\|eo[mt]\|>|<\|start\|>assistant(?:\s+to=[^\s<]+)?\s*<\|message\|>")
_HEADER_REST = re.compile(r"(?:\s+to=[^\s<]+)?\s*")
_UNFINISHED_REST = re.compile(r"\s+to?|\s+to=[^\s<]*")
#: A name of anything else than these characters is not worth losing.
_HEADER = re.compile(r"(?:<\|start\|>assistant)?\s*(?P<recipient>to=[\w.-]*|self|user)?", re.ASCII)


class GlimmerParser(StagedParser):
    """Messages with a recipient each: itself, a tool or the user."""

    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = ("<|start|>", _MESSAGE, *_ENDS)

    def __init__(self) -> None:
        super().__init__()
        self._shows_thinking = True
        self._kind: type[Content] | type[Thinking] = Content
        self._recipient: str | None = None  # the tool that the message is for

    def _begin(self, last: Message | None, think: Think | None) -> None:
        self._shows_thinking = think is not False
        self._stage = self._header

    def _header(self, done: bool) -> bool:
        split = self._await((_MESSAGE, *_ENDS))
        if split is None and not done:
            return False
        text = split.before if split else self._buffer
        self._buffer = split.after if split else ""
        # Only the last start is this message's; what is before it is text where none belongs.
        start = max(text.rfind(_START), 0)
        beside, header = text[:start].strip(), text[start:].strip()
        self._say(Content, beside)
        if split is None or split.tag != _MESSAGE:
            # The start of a message of which nothing followed is no text.
            self._say(Content, header.removeprefix(_START))
            return split is not None
        recipient = self._read_header(header)
        self._kind = Thinking if recipient == "self" else Content
        self._recipient = addressed_tool(recipient, self._tools)
        return self._go(self._content if recipient == "self" else self._content_start)

    def _read_header(self, header: str) -> str:
        found = _HEADER.fullmatch(header)
        if found is not None:
            return (found["recipient"] or "").removeprefix("to=")
        name = header.removeprefix(_START).strip()
        if addressed_tool(name, self._tools) is None:
            # Not what a header looks like: the model's text.
            self._say(Content, header)
        return name

    def _content_start(self, done: bool) -> bool:
        """Where a message begins that may be a call."""
        text = self._buffer.lstrip()
        if text.startswith(BLOCK):
            self._gap = self._buffer[: -len(text)]
            self._buffer = text
            return self._go(self._block)
        if not done and (not text or may_begin(text, (BLOCK,))):
            return False
        return self._go(self._content)

    def _content(self, done: bool) -> bool:
        end = _END.search(self._buffer)
        shown = end.start() if end else len(self._buffer) if done else self._settled(self._buffer)
        block = self._buffer.find(BLOCK, 0, shown) if self._recipient else -1
        if block >= 0:
            self._pass_on(block)
            self._gap = ""
            return self._go(self._block)
        if self._recipient and not end and not done:
            shown = min(shown, len(self._buffer) - partial_tag(self._buffer, (BLOCK,)))
        self._pass_on(shown)
        if end is None:
            return False
        if end[0] in _ENDS:
            self._buffer = self._buffer[len(end[0]) :]
        return self._go(self._header)

    def _pass_on(self, length: int) -> None:
        if self._kind is Content or self._shows_thinking:
            self._say(self._kind, self._buffer[:length])
        self._buffer = self._buffer[length:]

    def _settled(self, text: str) -> int:
        """How much of a body cannot belong to its end, which has not come yet."""
        header = text.rfind(_START)
        if header >= 0:
            rest = text[header + len(_START) :]
            cut = len(rest) - partial_tag(rest, (_MESSAGE,))
            if _HEADER_REST.fullmatch(rest, 0, cut) or _UNFINISHED_REST.fullmatch(rest):
                return header
        return len(text) - partial_tag(text, (*_ENDS, _START))

    def _block(self, done: bool) -> bool:
        split = self._await((BLOCK_END,))
        if split is None:
            if not done:
                return False
            self._say(Content, self._gap + BLOCK)
            self._buffer = self._buffer[len(BLOCK) :]
            return self._go(self._content)
        text, rest = split.before + BLOCK_END, split.after
        alone = True
        if self._recipient is None:
            # To the user a block may be shown rather than called: then there is text behind it.
            following = rest.lstrip()
            alone = not following or _END.match(following) is not None
            if not done and not alone and self._settled(following) == 0:
                return False
            if not done and not following:
                return False
        call = self._read(text) if alone else None
        self._buffer = rest
        if call is not None:
            self._events.append(call)
        else:
            self._say(Content, self._gap + text)
        return self._go(self._content, skip_space=call is not None)

    def _read(self, text: str) -> Call | None:
        try:
            invocation = read_block(text)
        except ValueError:
            return None
        tool = addressed_tool(invocation.name, self._tools)
        if tool is None or self._recipient not in (None, tool):
            return None
        return Call(tool, arguments_of(invocation, tool, self._tools))


PARSERS: dict[str, ParserFactory] = {"glimmer": GlimmerParser}
