"""The tokens of a template's text (prompting 2.1). Pure.

A mistake is a token too: the parser reports it when, and only if, it gets there.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

OPEN, CLOSE = "{{", "}}"
WHITESPACE = " \t\r\n"


class Kind(Enum):
    ERROR = auto()
    EOF = auto()
    TEXT = auto()
    OPEN = auto()
    CLOSE = auto()
    SPACE = auto()
    PIPE = auto()
    DECLARE = auto()
    ASSIGN = auto()
    COMMA = auto()
    CHARACTER = auto()
    OPEN_PAREN = auto()
    CLOSE_PAREN = auto()
    NUMBER = auto()
    STRING = auto()
    DOT = auto()
    FIELD = auto()
    VARIABLE = auto()
    IDENTIFIER = auto()
    BOOL = auto()
    NIL = auto()
    KEYWORD = auto()


KEYWORDS = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "range", "template", "with")
)

_SINGLE = {
    "=": Kind.ASSIGN,
    "|": Kind.PIPE,
    ",": Kind.COMMA,
    "(": Kind.OPEN_PAREN,
    ")": Kind.CLOSE_PAREN,
}


class Token(NamedTuple):
    """``value``: the source text, of an error its message; ``position`` in characters."""

    kind: Kind
    value: str
    position: int


class LexicalError(Exception):
    """Ends the tokens; never leaves this module."""


def tokens(text: str) -> Iterator[Token]:
    """All tokens of ``text``; the last one is an EOF or an ERROR."""
    lexer = _Lexer(text)
    try:
        yield from lexer.everything()
    except LexicalError as error:
        yield Token(Kind.ERROR, str(error), lexer.start)


def describe(character: str) -> str:
    """``U+0041 'A'``; what cannot be printed goes without the character."""
    shown = f" '{character}'" if character.isprintable() else ""
    return f"U+{ord(character):04X}{shown}"


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self.start = 0

    def everything(self) -> Iterator[Token]:
        text = self._text
        while True:
            opening = text.find(OPEN, self._position)
            literal = text[self._position : opening if opening >= 0 else len(text)]
            trims = opening >= 0 and self._trims_left(opening + len(OPEN))
            kept = literal.rstrip(WHITESPACE) if trims else literal
            if kept:
                yield Token(Kind.TEXT, kept, self._position)
            if opening < 0:
                self._position = self.start = len(text)
                yield Token(Kind.EOF, "", len(text))
                return
            self._position = self.start = opening
            inside = opening + len(OPEN) + (2 if trims else 0)
            if text.startswith("/*", inside):
                self._comment(inside)
                continue
            yield Token(Kind.OPEN, OPEN, opening)
            self._position = inside
            yield from self._action()

    def _trims_left(self, position: int) -> bool:
        return self._text[position : position + 1] == "-" and self._is_space(position + 1)

    def _is_space(self, position: int) -> bool:
        character = self._text[position : position + 1]
        return character != "" and character in WHITESPACE

    def _close_at(self, position: int) -> tuple[int, bool]:
        """The position after a right delimiter that is at ``position``, else -1; and its trim."""
        if self._is_space(position) and self._text.startswith("-" + CLOSE, position + 1):
            return position + 2 + len(CLOSE), True
        if self._text.startswith(CLOSE, position):
            return position + len(CLOSE), False
        return -1, False

    def _skip(self, position: int, trims: bool) -> None:
        if trims:
            while self._is_space(position):
                position += 1
        self._position = position

    def _comment(self, inside: int) -> None:
        end = self._text.find("*/", inside + 2)
        if end < 0:
            raise LexicalError("unclosed comment")
        after, trims = self._close_at(end + 2)
        if after < 0:
            raise LexicalError("comment ends before closing delimiter")
        self._skip(after, trims)

    def _action(self) -> Iterator[Token]:
        """The tokens of an action up to and including its right delimiter."""
        depth = 0
        while True:
            start = self.start = self._position
            after, trims = self._close_at(start)
            if after >= 0:
                if depth:
                    raise LexicalError("unclosed left paren")
                yield Token(Kind.CLOSE, CLOSE, start)
                self._skip(after, trims)
                return
            token = self._token(start)
            depth += (token.kind is Kind.OPEN_PAREN) - (token.kind is Kind.CLOSE_PAREN)
            if depth < 0:
                raise LexicalError("unexpected right paren")
            self._position = start + len(token.value)
            yield token

    def _token(self, start: int) -> Token:
        text = self._text
        if start >= len(text):
            raise LexicalError("unclosed action")
        character = text[start]
        if character in WHITESPACE:
            end = start
            while self._is_space(end):
                end += 1
            # The last whitespace character may belong to a trimming delimiter.
            if end - start > 1 and text.startswith("-" + CLOSE, end):
                end -= 1
            return Token(Kind.SPACE, text[start:end], start)
        if text.startswith(":=", start):
            return Token(Kind.DECLARE, ":=", start)
        if character == ":":
            raise LexicalError("expected :=")
        if character in _SINGLE:
            return Token(_SINGLE[character], character, start)
        if character in "\"'`":
            return self._quoted(start, character)
        if character == "$":
            return self._name(start, Kind.VARIABLE)
        if character == "." and text[start + 1 : start + 2] not in ("", *"0123456789"):
            return self._name(start, Kind.FIELD)
        if character in "+-.0123456789":
            return self._number(start)
        if _is_word(character):
            return self._identifier(start)
        if " " <= character <= "~":
            return Token(Kind.CHARACTER, character, start)
        raise LexicalError(f"unrecognized character in action: {describe(character)}")

    def _quoted(self, start: int, mark: str) -> Token:
        text, end = self._text, start + 1
        if mark == "`":
            end = text.find("`", end)
            if end < 0:
                raise LexicalError("unterminated raw quoted string")
            return Token(Kind.STRING, text[start : end + 1], start)
        while (character := text[end : end + 1]) != mark:
            if character == "\\":
                end += 1
                character = text[end : end + 1]
            if character in ("", "\n"):
                what = "character constant" if mark == "'" else "quoted string"
                raise LexicalError(f"unterminated {what}")
            end += 1
        kind = Kind.NUMBER if mark == "'" else Kind.STRING
        return Token(kind, text[start : end + 1], start)

    def _word_end(self, position: int) -> int:
        """The end of the letters, digits and underscores; a terminator has to follow them."""
        text = self._text
        while position < len(text) and _is_word(text[position]):
            position += 1
        follower = text[position : position + 1]
        if follower and follower not in " \t\r\n.,|:()" and not text.startswith(CLOSE, position):
            raise LexicalError(f"bad character {describe(follower)}")
        return position

    def _name(self, start: int, kind: Kind) -> Token:
        """``.``, ``.Name``, ``$`` or ``$name``."""
        value = self._text[start : self._word_end(start + 1)]
        return Token(Kind.DOT if value == "." else kind, value, start)

    def _identifier(self, start: int) -> Token:
        value = self._text[start : self._word_end(start)]
        kind = Kind.IDENTIFIER
        if value in KEYWORDS:
            kind = Kind.KEYWORD
        elif value in ("true", "false"):
            kind = Kind.BOOL
        elif value == "nil":
            kind = Kind.NIL
        return Token(kind, value, start)

    def _number(self, start: int) -> Token:
        end = self._one_number(start, start)
        if self._text[end : end + 1] in ("+", "-"):  # 1+2i
            end = self._one_number(start, end)
            if self._text[end - 1] != "i":
                raise self._bad_number(start, end)
        return Token(Kind.NUMBER, self._text[start:end], start)

    def _one_number(self, start: int, position: int) -> int:
        """The end of the number at ``position``; ``start`` is where the whole constant began."""
        text = self._text

        def run(characters: str, at: int, limit: int = -1) -> int:
            end = at
            while text[end : end + 1] and text[end] in characters and end - at != limit:
                end += 1
            return end

        digits, exponent = "0123456789_", "eE"
        position = run("+-", position, 1)
        if text.startswith("0", position):
            position += 1
            prefix = text[position : position + 1].lower()
            if prefix == "x":
                digits, exponent = "0123456789abcdefABCDEF_", "pP"
            elif prefix == "o":
                digits, exponent = "01234567_", ""
            elif prefix == "b":
                digits, exponent = "01_", ""
            position += len(prefix) if digits != "0123456789_" else 0
        position = run(digits, position)
        if text.startswith(".", position):
            position = run(digits, position + 1)
        if exponent and run(exponent, position, 1) > position:
            position = run("+-", position + 1, 1)
            position = run("0123456789_", position)
        position = run("i", position, 1)
        if position < len(text) and _is_word(text[position]):
            raise self._bad_number(start, position + 1)
        return position

    def _bad_number(self, start: int, end: int) -> LexicalError:
        return LexicalError(f'bad number syntax: "{self._text[start:end]}"')


def _is_word(character: str) -> bool:
    return character == "_" or character.isalpha() or character.isdecimal()
