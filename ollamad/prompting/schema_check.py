"""Mistakes in a JSON Schema that a runner would not report. Pure.

A runner that constrains with llguidance compiles a schema only when the answer begins. One that it
cannot compile is written to its log, and the model answers as it likes: nobody is told. llama.cpp's
own grammars take what they do not understand of a pattern for any text, and never end when limits
contradict each other. What is found here is refused before. Source: http-api.md 8.5.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import msgspec

from ollamad.errors import BadRequest, quoted
from ollamad.prompting.requests import Format

#: How deep llguidance reads JSON.
_MOST_LEVELS = 127

#: Longer patterns are hardly looked at, nor more of them: it takes time, and all others wait.
_LONGEST_PATTERN = 1000
_MOST_PATTERNS = 100

_ONE_SCHEMA = ("items", "additionalProperties", "contains", "propertyNames", "not")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_RANGES = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)


def check_schema(fmt: Format | None) -> None:
    """Raises BadRequest for a schema that is nested too deep, whose limits or required names make
    no sense, or that has a pattern which cannot be compiled or obeyed."""
    if fmt is None or fmt.schema is None:
        return
    try:
        schema = msgspec.json.decode(fmt.schema)
    except RecursionError:
        schema = None
    except msgspec.DecodeError:
        return  # the runner says what is wrong with it
    if schema is None or _is_too_deep(schema):
        raise BadRequest(f"invalid format: it is nested deeper than {_MOST_LEVELS} levels")
    patterns: dict[str, None] = {}
    for part in _schemas(schema):
        _check_keywords(part)
        if isinstance(pattern := part.get("pattern"), str):
            patterns[pattern] = None
        if isinstance(properties := part.get("patternProperties"), dict):
            patterns.update(dict.fromkeys(properties))
    for number, pattern in enumerate(patterns):
        reason = what_is_wrong(pattern) if number < _MOST_PATTERNS else _inverted(pattern)
        if reason:
            raise BadRequest(f"invalid format: the pattern {quoted(pattern)}: {reason}")


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [
            item
            for container in level
            if isinstance(container, (dict, list))
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True


def _schemas(root: Any) -> Iterator[dict[str, Any]]:
    """``root`` and all schemas in it; not the values that it talks of (``enum``, ``default``)."""
    waiting = [root]
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict):
            continue
        yield schema
        waiting += [schema[key] for key in _ONE_SCHEMA if key in schema]
        for key in _LISTS:
            if isinstance(found := schema.get(key), list):
                waiting += found
        for key in _MAPS:
            if isinstance(found := schema.get(key), dict):
                waiting += found.values()


def _check_keywords(schema: dict[str, Any]) -> None:
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise BadRequest('invalid format: "required" must be a list of names')
    for lower, upper in _RANGES:
        least, most = _number(schema.get(lower)), _number(schema.get(upper))
        if least is not None and most is not None and least > most:
            raise BadRequest(f'invalid format: "{lower}" is larger than "{upper}"')
    step = _number(schema.get("multipleOf"))
    if step is not None and step <= 0:
        raise BadRequest('invalid format: "multipleOf" must be larger than 0')


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else None


# --- patterns -------------------------------------------------------------------------------------

_LOOKAROUND = re.compile(r"\(\?<?[=!]")
_GROUP_NAME = re.compile(r"\(\?P?<[^>=!]+>")
_FLAGS = re.compile(r"\(\?[A-Za-z-]*([:)])")
_TIMES = re.compile(r"\{\d+(,\d*)?\}")
_FROM_TO = re.compile(r"\{(\d{1,20}),(\d{1,20})\}")
_PROPERTY = re.compile(r"\\[pP](\{[^{}]+\}|[A-Za-z])")
_CODE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f]{1,6})\})")
_CONTROL = re.compile(r"\\c[A-Za-z]")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class _Unsupported(Exception):
    """A construct that no grammar can follow."""


def what_is_wrong(pattern: str) -> str:
    """Why a runner cannot obey ``pattern``, ``""`` if it can, or in doubt.

    ``re`` is the judge of what is common to all dialects; what only ECMA-262 has is translated.
    """
    if len(pattern) > _LONGEST_PATTERN:
        return _inverted(pattern)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that a future Python reads differently
            re.compile(_translated(pattern))
    except _Unsupported as error:
        return str(error)
    except re.error as error:
        # A repeated repetition, or a class as the end of a range: other engines read them.
        reads = error.msg.startswith("bad character range") and "\\" in error.msg
        return "" if reads or error.msg == "multiple repeat" else error.msg
    except (OverflowError, RecursionError):
        return ""
    return ""


def _inverted(pattern: str) -> str:
    """What is wrong with the numbers of ``pattern``."""
    times = _FROM_TO.finditer(pattern)
    inverted = any(int(found[1]) > int(found[2]) for found in times)
    return "min repeat greater than max repeat" if inverted else ""


def _translated(pattern: str) -> str:
    """``pattern`` for Python's ``re``, matching about the same. Raises _Unsupported."""
    out: list[str] = []
    at, in_set = 0, False
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            text, at = _escape(pattern, at, in_set=in_set)
        elif in_set:
            in_set = char != "]"
            text, at = ("\\[" if char == "[" else char), at + 1
        elif char == "[":
            in_set = True
            # A bracket that comes first is one of the set, or the set is empty: ``re`` decides.
            end = at + 1 + pattern.startswith("^", at + 1)
            end += pattern.startswith("]", end)
            text, at = pattern[at:end], end
        elif char == "(":
            text, at = _group(pattern, at)
        elif char == "{":
            times = _TIMES.match(pattern, at)
            text = times[0] if times else "\\{"
            at += len(times[0]) if times else 1
        else:
            text, at = char, at + 1
        out.append(text)
    return "".join(out)


def _group(pattern: str, at: int) -> tuple[str, int]:
    """What opens at ``at``, and where it ends."""
    if _LOOKAROUND.match(pattern, at):
        raise _Unsupported("lookahead and lookbehind cannot be obeyed")
    if pattern.startswith("(?P=", at):
        raise _Unsupported("back references cannot be obeyed")
    if name := _GROUP_NAME.match(pattern, at):
        return "(", name.end()
    if flags := _FLAGS.match(pattern, at):
        return ("(?:" if flags[1] == ":" else "(?:)"), flags.end()
    return "(", at + 1


def _escape(pattern: str, at: int, *, in_set: bool) -> tuple[str, int]:
    """What is escaped at ``at``, and where it ends."""
    if found := _PROPERTY.match(pattern, at):
        return "\\w", found.end()
    if found := _CODE.match(pattern, at):
        code = int(found[1] or found[2] or found[3], 16)
        return re.escape(chr(code) if code <= 0x10FFFF else "x"), found.end()
    if found := _CONTROL.match(pattern, at):
        return re.escape(chr(ord(found[0][-1]) % 32)), found.end()
    found = _ESCAPE.match(pattern, at)
    if found is None:
        return "\\", at + 1
    char = found[1]
    if char in "dDwWsSfnrtv":
        return found[0], found.end()
    if not in_set:
        if char in "bB":
            raise _Unsupported("word boundaries cannot be obeyed")
        if char in "123456789" or pattern.startswith("k<", at + 1):
            raise _Unsupported("back references cannot be obeyed")
    char = {"b": "\b", **{str(n): chr(n) for n in range(10)}}.get(char, char)
    return re.escape(char), found.end()
