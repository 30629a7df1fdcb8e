"""``print``, ``println`` and ``printf`` as Go has them (prompting 2.5). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ollamad.gotemplate.errors import CallError
from ollamad.gotemplate.values import NIL, GoObject, joined, shown, type_name
from ollamad.gotemplate.verbs import Flags, float_text, integer_text, pad, string_text

#: A text that functions would make longer than this is refused: doubling a variable again and again
#: must not exhaust the memory. In characters.
MAX_TEXT = 16 * 1024 * 1024


def limited(text: str) -> str:
    """``text``; raises CallError when it is too long."""
    if len(text) > MAX_TEXT:
        raise CallError("text too long")
    return text


def sprint(values: Sequence[object]) -> str:
    """A space only between two neighbours of which neither is a string."""
    parts: list[str] = []
    previous: object = ""
    for value in values:
        if parts and not isinstance(value, str) and not isinstance(previous, str):
            parts.append(" ")
        parts.append(shown(value))
        previous = value
    return limited(joined(parts))


def sprintln(values: Sequence[object]) -> str:
    return limited(joined([" ".join(map(shown, values)), "\n"]))


_DIRECTIVE = re.compile(r"%([ +\-#0]*)", re.DOTALL)
_INDEX = re.compile(r"\[([^\]]*)\]")
_DIGITS = re.compile(r"[0-9]+")
#: Go takes no number that is longer than this when its last digit comes.
_LONGEST = 1_000_000
#: Widths and precisions beyond this are refused, for the sake of the memory.
_WIDEST = 10_000


def sprintf(template: str, values: Sequence[object]) -> str:
    """``values`` in the places that the verbs of ``template`` mark; mistakes show in the text."""
    return limited(joined(_Printf(template, values).parts()))


@dataclass(slots=True)
class _Printf:
    template: str
    values: Sequence[object]
    position: int = 0
    argument: int = 0
    reordered: bool = False
    good_index: bool = True
    out: list[str] = field(default_factory=list)

    def parts(self) -> list[str]:
        template = self.template
        while match := _DIRECTIVE.search(template, self.position):
            self.out.append(template[self.position : match.start()])
            self.position = match.end()
            self._directive(Flags.of(match[1]))
        self.out.append(template[self.position :])
        if not self.reordered and self.argument < len(self.values):
            extra = ", ".join(_typed(value) for value in self.values[self.argument :])
            self.out.append(f"%!(EXTRA {extra})")
        return self.out

    def _directive(self, flags: Flags) -> None:
        self.good_index = True
        after_index = self._explicit_index()
        if self._at("*"):
            after_index = self._starred_width(flags)
        elif (width := self._digits()) is not None:
            flags.width = width
            if after_index:  # "%[3]2d"
                self.good_index = False
        if self._at("."):
            if after_index:  # "%[3].2d"
                self.good_index = False
            after_index = self._precision(flags)
        if not after_index:
            self._explicit_index()
        if self.position >= len(self.template):
            self.out.append("%!(NOVERB)")
            return
        verb = self.template[self.position]
        self.position += 1
        self._verb(verb, flags)

    def _verb(self, verb: str, flags: Flags) -> None:
        if verb == "%":
            self.out.append("%")
        elif not self.good_index:
            self.out.append(f"%!{verb}(BADINDEX)")
        elif self.argument >= len(self.values):
            self.out.append(f"%!{verb}(MISSING)")
        else:
            value = self.values[self.argument]
            self.argument += 1
            self.out.append(formatted(value, verb, flags))

    def _at(self, mark: str) -> bool:
        if self.template.startswith(mark, self.position):
            self.position += 1
            return True
        return False

    def _digits(self) -> int | None:
        match = _DIGITS.match(self.template, self.position)
        if not match:
            return None
        digits = match[0].lstrip("0")
        if len(digits) > 8 or int(digits[:-1] or "0") > _LONGEST:
            self.position = len(self.template)
            return None
        self.position = match.end()
        return _checked(int(match[0]))

    def _explicit_index(self) -> bool:
        """Takes ``[3]``; whether there was one."""
        if not self.template.startswith("[", self.position):
            return False
        self.reordered = True
        match = _INDEX.match(self.template, self.position)
        if not match:
            self.good_index = False
            self.position += 1
            return False
        self.position = match.end()
        number = match[1]
        if not _DIGITS.fullmatch(number) or len(number) > 7:
            self.good_index = False
            return True
        if not 1 <= int(number) <= len(self.values):
            self.good_index = False
            return True
        self.argument = int(number) - 1
        return True

    def _starred(self) -> int | None:
        value = self.values[self.argument] if self.argument < len(self.values) else None
        self.argument = min(self.argument + 1, len(self.values))
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LONGEST:
            return _checked(value)
        return None

    def _starred_width(self, flags: Flags) -> bool:
        flags.width = self._starred()
        if flags.width is None:
            self.out.append("%!(BADWIDTH)")
        elif flags.width < 0:
            flags.width, flags.minus, flags.zero = -flags.width, True, False
        return False

    def _precision(self, flags: Flags) -> bool:
        after_index = self._explicit_index()
        if self._at("*"):
            flags.precision = self._starred()
            if flags.precision is not None and flags.precision < 0:
                flags.precision = None
                self.out.append("%!(BADPREC)")
            elif flags.precision is None:
                self.out.append("%!(BADPREC)")
            return False
        flags.precision = self._digits() or 0
        return after_index


def _checked(number: int) -> int:
    if abs(number) > _WIDEST:
        raise CallError("text too long")
    return number


def _typed(value: object) -> str:
    return NIL if value is None else f"{type_name(value)}={shown(value)}"


def _bad_verb(value: object, verb: str, flags: Flags) -> str:
    if value is None:
        return f"%!{verb}({NIL})"
    return f"%!{verb}({type_name(value)}={_formatted_value(value, 'v', flags)})"


def formatted(value: object, verb: str, flags: Flags, *, nested: bool = False) -> str:
    """One value as one verb shows it; ``nested`` inside of a list or map."""
    if verb == "T" and value is None:
        return pad(NIL, flags, zero=flags.zero)
    if verb == "T" and not nested:
        return string_text(type_name(value), "s", flags)
    if verb == "v":
        flags = flags.of_v()
    if value is None:
        if nested:
            return "interface {}(nil)" if flags.source else NIL
        return pad(NIL, flags, zero=flags.zero) if verb == "v" else _bad_verb(value, verb, flags)
    return _formatted_value(value, verb, flags)


def _formatted_value(value: object, verb: str, flags: Flags) -> str:
    text: str | None = None
    if isinstance(value, GoObject):
        if verb in "vsqxX":
            return string_text(value.go_text(), "s" if verb == "v" else verb, flags)
    elif isinstance(value, str):
        text = string_text(value, verb, flags) if verb in "vsqxX" else None
    elif isinstance(value, bool):
        text = _truth(value, flags) if verb in "vt" else None
    elif isinstance(value, int):
        text = integer_text(value, verb, flags) if verb in "vdboOxXcqU" else None
    elif isinstance(value, float):
        text = float_text(value, verb, flags) if verb in "vbgGxXfFeE" else None
    elif isinstance(value, list | tuple | dict):
        return _collection(value, verb, flags)
    return _bad_verb(value, verb, flags) if text is None else text


def _truth(value: bool, flags: Flags) -> str:
    return pad("true" if value else "false", flags, zero=flags.zero)


def _collection(
    value: list[object] | tuple[object, ...] | dict[str, object], verb: str, flags: Flags
) -> str:
    is_source = verb == "v" and flags.source
    if isinstance(value, dict):
        pairs = [
            formatted(key, verb, flags, nested=True)
            + ":"
            + formatted(value[key], verb, flags, nested=True)
            for key in sorted(value)
        ]
        if is_source:
            return type_name(value) + "{" + ", ".join(pairs) + "}"
        return "map[" + " ".join(pairs) + "]"
    items = [formatted(item, verb, flags, nested=True) for item in value]
    if is_source:
        return type_name(value) + "{" + ", ".join(items) + "}"
    return "[" + " ".join(items) + "]"
