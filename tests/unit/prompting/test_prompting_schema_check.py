"""Schemas that a runner would drop without a word: http-api.md 8.5."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.errors import BadRequest
from ollamad.prompting.requests import Format
from ollamad.prompting.schema_check import check_schema, what_is_wrong

BAD = {
    "[": "unterminated character set",
    "^(a": "missing ), unterminated subpattern",
    "a)": "unbalanced parenthesis",
    "*a": "nothing to repeat",
    "a|+": "nothing to repeat",
    "a{3,1}": "min repeat greater than max repeat",
    "[b-a]": "bad character range b-a",
    "[\\u0062-\\x61]": "bad character range b-a",
    "\\u{62}[": "unterminated character set",
    "a\\": "bad escape (end of pattern)",
    "^(?=a)a": "lookahead and lookbehind cannot be obeyed",
    "^(?!a)b": "lookahead and lookbehind cannot be obeyed",
    "(?<=a)b": "lookahead and lookbehind cannot be obeyed",
    "(?<!a)b": "lookahead and lookbehind cannot be obeyed",
    "(a)\\1": "back references cannot be obeyed",
    "(?<x>a)\\k<x>": "back references cannot be obeyed",
    "\\bab": "word boundaries cannot be obeyed",
}
GOOD = [
    *("", "^$", "^\\d{3}$", "\\S+", "^[\\w.-]+@[a-z]+\\.com$", "(?:a|b)+?", "a{2,}", "[]a]"),
    # What only Python does not read, or not so.
    *("^\\p{L}{3}$", "[\\p{Lu}\\p{Nd}_-]", "\\pL", "\\p{Script=Greek}", "(?<x>ab)"),
    *("(?<x>a)(?<x>b)", "\\/", "\\-", "\\_", "\\@", "\\cA", "\\0", "[\\b]", "\\e", "[^]a]"),
    *("[\\u4e00-\\u9fa5]", "\\x41", "\\u{1F600}", "[\\0-a]", "[\\b-a]", "[\\cA-Z]", "[\\1-a]"),
    *("a{b}", "{", "a{,3}", "[[]", "[a&&b]", "[--/]", "[(?=]", "[\\1]", "[\\d-x]", "[a-\\d]"),
    *("a**", "a{2}{3}", "(?i)ab", "a(?i)b", "(?i:ab)", "(?i-s:ab)", "\\(?=", "\\\\b"),
    "a{99999999999}",
]


def checked(schema: Any) -> None:
    check_schema(Format(json.dumps(schema).encode()))


@pytest.mark.parametrize(("pattern", "reason"), BAD.items())
def test_patterns_that_cannot_be_obeyed(pattern: str, reason: str) -> None:
    assert what_is_wrong(pattern) == reason


@pytest.mark.parametrize("pattern", GOOD)
def test_patterns_that_may_be_right(pattern: str) -> None:
    assert what_is_wrong(pattern) == ""


@given(st.text(alphabet="ab1\\[](){}^$*+?|.-,<>=!:pPukcx", max_size=12))
def test_any_text_is_judged(pattern: str) -> None:
    assert isinstance(what_is_wrong(pattern), str)


@given(st.text(alphabet="ab\\[](){}^$*+?|.-,d:", max_size=8))
def test_what_python_reads_is_not_broken(pattern: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except re.error:
        return
    assert what_is_wrong(pattern) in ("", BAD["\\bab"])


@pytest.mark.parametrize(
    "around",
    [
        {"type": "string", "pattern": "["},
        {"patternProperties": {"^a": {}, "[": {}}},
        *({key: {"pattern": "["}} for key in ("items", "additionalProperties", "contains", "not")),
        *({key: [{}, {"pattern": "["}]} for key in ("anyOf", "oneOf", "allOf", "prefixItems")),
        *({key: {"a": {"pattern": "["}}} for key in ("properties", "$defs", "definitions")),
        {"items": [{"pattern": "["}]},
        {"properties": {"enum": {"items": {"anyOf": [{"pattern": "["}]}}}},
    ],
)
def test_patterns_are_found_wherever_they_count(around: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        checked(around)
    text = 'invalid format: the pattern "[": unterminated character set'
    assert (caught.value.status, caught.value.message) == (400, text)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {"pattern": {"type": "string"}}},
        {"enum": [{"pattern": "["}], "default": {"pattern": "["}, "const": {"required": 3}},
        {"pattern": 3},
        {"patternProperties": "["},
        {"anyOf": 3, "items": True, "properties": ["["]},
        {"minimum": 1, "maximum": 1, "minLength": "5", "maxLength": 1},
        {"required": [], "multipleOf": 0.1},
        {"pattern": "[" * 1001},
        {"pattern": "[" * 1001 + "a{1,3}"},
        {"patternProperties": {**{str(n): {} for n in range(100)}, "[": {}}},
    ],
)
def test_schemas_that_pass(schema: dict[str, Any]) -> None:
    checked(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "a" * 1001 + "{3,1}"},
        {"patternProperties": {**{str(n): {} for n in range(100)}, "a{3,1}": {}}},
    ],
)
def test_limits_that_contradict_are_found_everywhere(schema: dict[str, Any]) -> None:
    """A runner would never come back from them."""
    with pytest.raises(BadRequest, match="min repeat greater than max repeat"):
        checked(schema)


def test_no_schema() -> None:
    check_schema(None)
    check_schema(Format(None))


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"required": "a"}, '"required" must be a list of names'),
        ({"required": [1]}, '"required" must be a list of names'),
        ({"minimum": 5, "maximum": 1.5}, '"minimum" is larger than "maximum"'),
        ({"minLength": 5, "maxLength": 1}, '"minLength" is larger than "maxLength"'),
        ({"minItems": 5, "maxItems": 1}, '"minItems" is larger than "maxItems"'),
        ({"minProperties": 5, "maxProperties": 1}, '"minProperties" is larger'),
        ({"multipleOf": 0}, '"multipleOf" must be larger than 0'),
    ],
)
def test_keywords_that_make_no_sense(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRequest) as caught:
        checked({"properties": {"a": schema}})
    assert caught.value.message.startswith(f"invalid format: {reason}")


def test_the_depth_that_a_runner_reads() -> None:
    check_schema(Format(b'{"x":' + b"[" * 126 + b"]" * 126 + b"}"))
    for levels in (127, 100_000):
        with pytest.raises(BadRequest, match="nested deeper than 127 levels"):
            check_schema(Format(b'{"x":' + b"[" * levels + b"]" * levels + b"}"))
