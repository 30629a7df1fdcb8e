"""Reading a Modelfile (modelfile-and-create 1.3). Pure.

The reference is a machine over single characters; this one takes whole lines, and differs only
where the contract says so: blanks before a parameter name or a role are skipped, CRLF is one line
end in line numbers, and parameters live in a namespace of their own.

The one rule that a reader of the code must know: the end of a quoted value is looked for at line
ends only, on everything since the opening quote. ``"a" b`` goes on; ``"say "hi""`` is complete.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from ollamad.modelfile.errors import ModelfileError
from ollamad.modelfile.text import BLANKS, SPACE, decode, keep_printable, keep_text, strip, unquote

Keyword = Literal[
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
]

Role = Literal["system", "user", "assistant"]

_KEYWORDS: dict[str, Keyword] = {keyword: keyword for keyword in get_args(Keyword)}
_ROLES: frozenset[str] = frozenset(get_args(Role))
_PROSE = frozenset({"template", "system", "license", "message"})

_UNKNOWN_COMMAND = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", '
    '"renderer", "parser", "parameter", "message", or "requires"'
)
_UNKNOWN_ROLE = 'message role must be one of "system", "user", or "assistant"'

_LETTERS = re.compile(r"[A-Za-z]*")
_KEY = re.compile(r"[A-Za-z0-9_]*")
_LINE_END = re.compile(r"[\r\n]")
_COUNTED_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Command:
    """One command. ``key`` is the parameter's name or the message's role, else empty."""

    keyword: Keyword
    argument: str
    key: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Modelfile:
    """All commands in the order of the file."""

    commands: tuple[Command, ...]


def parse(source: bytes | str) -> Modelfile:
    """Read a Modelfile. Raises ModelfileError at the first mistake (1.6)."""
    commands = _Reader(decode(source)).commands()
    if not any(command.keyword == "from" for command in commands):
        raise ModelfileError("no FROM line")
    return Modelfile(tuple(commands))


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self._counted_to = 0
        self._line = 1

    def commands(self) -> list[Command]:
        found = []
        while self._to_command():
            found.append(self._command())
        return found

    def _to_command(self) -> bool:
        """Skip white space and comments; whether a command begins here."""
        while True:
            self._skip(SPACE)
            if self._peek() != "#":
                return self.position < len(self.text)
            self._rest_of_line()

    def _command(self) -> Command:
        line = self._line_of(self.position)
        keyword = self._keyword()
        key = ""
        if keyword == "parameter":
            key = self._key(_KEY)
        elif keyword == "message":
            key = self._key(_LETTERS)
            if key not in _ROLES:
                raise self._error_here(_UNKNOWN_ROLE)
        self._skip(BLANKS)
        prose = keyword in _PROSE or (keyword == "parameter" and key == "stop")
        argument = self._value(prose)
        if argument is None:
            name = f"{keyword.upper()} {key}".rstrip()
            raise ModelfileError(
                f"unexpected EOF\n(value of {name} that starts at line {line} is not closed)"
            )
        return Command(keyword, argument, key, line)

    def _keyword(self) -> Keyword:
        start = self.position
        # Whatever stands first begins a word, but only printable characters are kept in it: a form
        # feed before FROM is harmless.
        first = self.text[start]
        self.position += 1
        word = first if first.isprintable() else ""
        word += self._take(_LETTERS)
        if self.position == len(self.text):
            raise ModelfileError("unexpected EOF")
        keyword = _KEYWORDS.get(word.lower()) if word.isascii() else None
        if keyword is None or self.text[self.position] not in BLANKS:
            raise self._error_here(_UNKNOWN_COMMAND)
        self.position += 1
        return keyword

    def _key(self, pattern: re.Pattern[str]) -> str:
        self._skip(BLANKS)
        key = self._take(pattern)
        if self.position == len(self.text):
            raise ModelfileError("unexpected EOF")
        if self.text[self.position] not in BLANKS:
            raise ModelfileError(f"unexpected EOF: {key}")
        return key

    def _value(self, prose: bool) -> str | None:
        """The value that begins here; none if the text ends inside its quotes."""
        keep = keep_text if prose else keep_printable
        first = keep(self._rest_of_line())
        value = unquote(strip(first))
        if value is not None:
            return value
        # No quotes span a line end, so the first line tells what closes the value, and after it
        # only lines that end in that need a look: reading stays linear in the size of the text.
        closing = '"""' if strip(first).startswith('"""') else '"'
        kept = [first]
        while line_end := _LINE_END.match(self.text, self.position):
            self.position = line_end.end()
            line = keep(self._rest_of_line())
            kept += (line_end.group(), line)
            if line.rstrip(SPACE).endswith(closing):
                return unquote(strip("".join(kept)))
        return None

    def _rest_of_line(self) -> str:
        start = self.position
        end = _LINE_END.search(self.text, start)
        self.position = end.start() if end else len(self.text)
        return self.text[start : self.position]

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.position)
        assert match is not None, "the patterns match the empty text"
        self.position = match.end()
        return match.group()

    def _skip(self, chars: str) -> None:
        end = len(self.text)
        while self.position < end and self.text[self.position] in chars:
            self.position += 1

    def _line_of(self, position: int) -> int:
        """The number of the line at ``position``, counted onwards from the last answer."""
        self._line += sum(
            1 for _ in _COUNTED_LINE_END.finditer(self.text, self._counted_to, position)
        )
        self._counted_to = position
        return self._line

    def _error_here(self, message: str) -> ModelfileError:
        """An error at the character that showed it; a line end counts as already passed."""
        position = self.position
        if self._peek() in ("\r", "\n"):
            position += 1
        return ModelfileError(f"(line {self._line_of(position)}): {message}")
