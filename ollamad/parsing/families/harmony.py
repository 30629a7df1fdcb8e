"""harmony (gpt-oss): messages with a channel and a recipient each. Pure.

Source: renderers-and-parsers.md 4. Unlike the reference: every message to a tool is a call of its
own; one that is no JSON object is content, and so is what stands where no text belongs (between
messages, in headers).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import msgspec

from ollamad.parsing.call_objects import read_object
from ollamad.parsing.events import Call, Content, ParserFactory, Thinking
from ollamad.parsing.families.harmony_names import convert_names
from ollamad.parsing.families.stages import StagedParser
from ollamad.parsing.start import continues_answer
from ollamad.parsing.withholding import partial_tag
from ollamad.wire import Message, Think, Tool

_START, _END, _MESSAGE = "<|start|>", "<|end|>", "<|message|>"
_CHANNEL, _CONSTRAIN = "<|channel|>", "<|constrain|>"
_CHANNELS = ("analysis", "commentary", "final")
_ROLES = ("assistant", "system", "developer", "user", "tool")
_PREFIX = "functions."
#: Channels, recipients and kinds of content as headers name them; anything else is text.
_NAME = re.compile(r"[\w./$-]*", re.ASCII)
#: What a header consists of that breaks off: nothing of it is text.
_UNFINISHED_HEADER = re.compile(
    r"(?:assistant)?(?:\s*to=[\w.$-]*)?\s*(?:<\|channel\|>(?P<channel>[a-z]*)"
    r"(?:\s+to=[\w.$-]*)?\s*(?:<\|constrain\|>[a-z]*)?\s*)?",
    re.ASCII,
)


class Header(NamedTuple):
    """What a header says; ``extra`` is the text in it that says nothing."""

    role: str
    channel: str
    recipient: str
    extra: str


def read_header(text: str) -> Header:
    """The parts of a header, the text between ``<|start|>`` and ``<|message|>``."""
    before, tag, after = text.replace(_CONSTRAIN, " " + _CONSTRAIN).partition(_CHANNEL)
    channel, behind = "", ""
    if tag:
        channel = after.split(maxsplit=1)[0] if after[:1].strip() else ""
        behind = after[len(channel) :]
        if not _NAME.fullmatch(channel):
            behind, channel = after, ""
    words = f"{before} {behind}".split()
    role = words.pop(0) if words else ""
    recipient = ""
    if role.startswith("to="):
        role, recipient = "tool", role.removeprefix("to=")
    elif words and words[0].startswith("to="):
        recipient = words.pop(0).removeprefix("to=")
    extra = " ".join(word for word in words if not _is_content_kind(word))
    return Header(role, channel, recipient, extra)


class HarmonyParser(StagedParser):
    """Reasoning in the analysis channel, calls in messages to tools, everything else content."""

    has_thinking: ClassVar[bool] = True
    preserved_tokens: ClassVar[tuple[str, ...]] = (_START, _END, _MESSAGE, _CHANNEL, _CONSTRAIN)

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, str] = {}  # the client's, by the model's
        self._is_open = True  # the prompt has written the start of the message and its role
        self._kind: type[Content] | type[Thinking] = Content
        self._header_text = ""
        self._recipient = ""
        self._extra = ""  # of the header of a call

    def start(
        self, tools: Sequence[Tool], last: Message | None, think: Think | None
    ) -> Sequence[Tool]:
        """See Parser.start: the tools get names that the model can write."""
        super().start(tools, last, think)
        names = convert_names(tool.function.name for tool in tools)
        self._names = {name: tool.function.name for name, tool in zip(names, tools, strict=True)}
        return [
            msgspec.structs.replace(
                tool, function=msgspec.structs.replace(tool.function, name=name)
            )
            for name, tool in zip(names, tools, strict=True)
        ]

    def _begin(self, last: Message | None, think: Think | None) -> None:
        self._stage = self._header
        if continues_answer(last):
            self._stage = self._content
        elif last is not None and last.role == "assistant" and last.thinking:
            self._kind = Thinking
            self._stage = self._content

    def _header(self, done: bool) -> bool:
        split = self._await((_MESSAGE, _START, _END))
        if split is None:
            if done:
                self._say_unless_header(self._buffer)
                self._buffer = ""
            return False
        self._buffer = split.after
        if split.tag != _MESSAGE:
            self._say_unless_header(split.before)
            return self._to_header() if split.tag == _START else self._to_gap()
        self._header_text = split.before
        header = read_header(("assistant " if self._is_open else "") + split.before)
        self._recipient = header.recipient
        self._extra = "" if _is_role(header.role) else header.role
        if header.recipient and header.channel in ("analysis", "commentary"):
            # One stray word (the kind of content without its tag) is not worth showing.
            if not _NAME.fullmatch(header.extra):
                self._extra += " " + header.extra
            return self._go(self._tool_call)
        self._kind = Thinking if header.channel == "analysis" else Content
        self._say(Content, self._extra)
        if not _NAME.fullmatch(header.recipient):
            self._say(Content, header.recipient)
        self._say(Content, header.extra)
        return self._go(self._content)

    def _to_header(self) -> bool:
        self._is_open = False
        return self._go(self._header)

    def _to_gap(self) -> bool:
        return self._go(self._between, skip_space=True)

    def _say_unless_header(self, text: str) -> None:
        """Give a header that did not end as content, unless it is all markup."""
        markup = text[: len(text) - partial_tag(text, (_CHANNEL, _CONSTRAIN, _MESSAGE))].strip()
        found = _UNFINISHED_HEADER.fullmatch(markup)
        is_header = (
            found is not None
            and not (self._is_open and _CHANNEL not in markup)
            and any(name.startswith(found["channel"] or "") for name in _CHANNELS)
        )
        if not is_header and text.strip():
            self._say(Content, text)

    def _content(self, done: bool) -> bool:
        tag = self._stream(self._kind, (_END,), done, loose=(_END,))
        return tag is not None and self._to_gap()

    def _tool_call(self, done: bool) -> bool:
        split = self._await((_END,))
        if split is None and not done:
            return False
        text = split.before if split else self._buffer
        self._buffer = split.after if split else ""
        arguments = read_object(text)
        if arguments is None:
            raw = self._header_text.lstrip() + _MESSAGE + text + _END * bool(split)
            self._say(Content, raw)
        else:
            self._say(Content, self._extra.strip())
            name = self._recipient.removeprefix(_PREFIX)
            self._events.append(Call(self._names.get(name, name), arguments))
        return split is not None and self._to_gap()

    def _between(self, done: bool) -> bool:
        tag = self._stream(Content, (_START, _END), done)
        if tag is None:
            return False
        return self._to_header() if tag == _START else self._to_gap()


def _is_content_kind(word: str) -> bool:
    return word.startswith(_CONSTRAIN) and bool(_NAME.fullmatch(word, len(_CONSTRAIN)))


def _is_role(word: str) -> bool:
    return not word or word in _ROLES or word.startswith((_PREFIX, "browser.", "python"))


PARSERS: dict[str, ParserFactory] = {"harmony": HarmonyParser}
