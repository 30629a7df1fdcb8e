"""GNU-style flags: what words of a command line mean (``cli.md`` 1.1). Pure.

Not argparse: that eats the word after an optional value, exits with 2 and prints the usage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ollamad.errors import UsageError, quoted

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_OCTAL = re.compile(r"([+-]?)0([0-7]+)")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[1-9][0-9]*|0)")

Value = str | bool | int


class Flag(NamedTuple):
    """``optional`` is the value of the bare flag, for a flag whose value may be left out."""

    name: str
    help: str
    kind: Literal["bool", "string", "int"] = "bool"
    short: str = ""
    optional: str = ""

    @property
    def takes_value(self) -> bool:
        """Whether the next word belongs to the flag when no ``=`` follows it."""
        return self.kind != "bool" and not self.optional


HELP = Flag("help", "", short="h")


class Parsed(NamedTuple):
    """Positional words, and the values of the flags that were given."""

    words: tuple[str, ...]
    given: Mapping[str, Value]

    def text(self, name: str) -> str:
        value = self.given.get(name, "")
        return value if isinstance(value, str) else ""

    def switch(self, name: str) -> bool:
        return self.given.get(name) is True

    def number(self, name: str) -> int:
        value = self.given.get(name, 0)
        return value if isinstance(value, int) else 0


def parse(flags: Sequence[Flag], words: Sequence[str]) -> Parsed:
    """Separate flags from positional words, in any order until ``--``.

    Raises UsageError with the texts of 1.1 at the first bad word.
    """
    known = (*flags, HELP)
    by_name = {flag.name: flag for flag in known}
    by_short = {flag.short: flag for flag in known if flag.short}
    given: dict[str, Value] = {}
    positional: list[str] = []
    queue = list(reversed(words))
    while queue:
        word = queue.pop()
        if word == "--":
            positional += reversed(queue)
            break
        if word.startswith("--"):
            name, assigned, text = word[2:].partition("=")
            if not name or name[0] == "-":
                raise UsageError(f"bad flag syntax: {word}")
            flag = by_name.get(name)
            if flag is None:
                raise UsageError(f"unknown flag: --{name}")
            if not assigned:
                if not flag.takes_value:
                    text = flag.optional or "true"
                elif queue:
                    text = queue.pop()
                else:
                    raise UsageError(f"flag needs an argument: {word}")
            given[flag.name] = _value(flag, text)
        elif word.startswith("-") and word != "-":
            _parse_group(word[1:], by_short, queue, given)
        else:
            positional.append(word)
    return Parsed(tuple(positional), given)


def _parse_group(
    letters: str, by_short: Mapping[str, Flag], queue: list[str], given: dict[str, Value]
) -> None:
    """``xyz`` of the word ``-xyz``: flags, of which the last may have a value attached."""
    while letters:
        flag = by_short.get(letters[0])
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letters[0]}' in -{letters}")
        rest = letters[1:]
        if rest.startswith("="):
            text, rest = rest[1:], ""
        elif not flag.takes_value:
            text = flag.optional or "true"
        elif rest:
            text, rest = rest, ""
        elif queue:
            text = queue.pop()
        else:
            raise UsageError(f"flag needs an argument: '{letters[0]}' in -{letters}")
        given[flag.name] = _value(flag, text)
        letters = rest


def _value(flag: Flag, text: str) -> Value:
    try:
        if flag.kind == "bool":
            return _boolean(text)
        return integer(text) if flag.kind == "int" else text
    except ValueError as error:
        shown = f"-{flag.short}, --{flag.name}" if flag.short else f"--{flag.name}"
        raise UsageError(
            f"invalid argument {quoted(text)} for {quoted(shown)} flag: {error}"
        ) from None


def _boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")


def integer(text: str) -> int:
    """Decimal, or with one of the prefixes 0x, 0o, 0b, 0; 64 bits. Raises ValueError."""
    octal = _OCTAL.fullmatch(text)
    if octal is not None:
        text = f"{octal[1]}0o{octal[2]}"
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    value = int(text, 0) if len(text) < 100 else 1 << 64
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return value


def command_position(flags: Sequence[Flag], words: Sequence[str]) -> int | None:
    """Where in ``words`` the first word is that is no flag nor the value of one, or None.

    ``flags`` are those of the program itself. A flag that is not among them is taken to have a
    value: which flags a command has is not known before the command is.
    """
    plain = {f"--{flag.name}" for flag in (*flags, HELP) if not flag.takes_value}
    plain |= {f"-{flag.short}" for flag in (*flags, HELP) if flag.short and not flag.takes_value}
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            return None
        if word == "-" or not word.startswith("-"):
            return position
        alone = "=" in word or word in plain or (len(word) > 2 and word[1] != "-")
        position += 1 if alone else 2
    return None
