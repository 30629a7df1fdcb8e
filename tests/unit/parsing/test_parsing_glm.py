"""glm-4.7 and glm-ocr: renderers-and-parsers.md 3.11."""

from typing import Any

import pytest
from support.answers import WEATHER, events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.parsing.families.glm_call import read_glm_call
from ollamad.wire import Think

CITY = "<arg_key>city</arg_key><arg_value>Paris</arg_value>"
DAYS = "<arg_key>days</arg_key><arg_value>3</arg_value>"
CALL = f"<tool_call>get_weather{CITY}{DAYS}</tool_call>"
PARIS = Call("get_weather", {"city": "Paris", "days": 3})


@pytest.mark.parametrize(
    ("name", "text", "think", "expected"),
    [
        (
            "glm-4.7",
            f"thinking</think>ok {CALL} after",
            True,
            [Thinking("thinking"), Content("ok"), PARIS, Content("after")],
        ),
        ("glm-4.7", "a<think>b </think>\n c", None, [Thinking("a<think>b"), Content("c")]),
        ("glm-4.7", " <think> a</think> b", False, [Thinking("a"), Content("b")]),
        ("glm-4.7", " a<think>", False, [Content(" a<think>")]),
        ("glm-ocr", "\n<think>\na\n</think>\nb", False, [Thinking("a"), Content("b")]),
        ("glm-ocr", f"a {CALL}{CALL}", True, [Content("a"), PARIS, PARIS]),
        ("glm-ocr", "<thi", True, [Content("<thi")]),
        ("glm-4.7", "a</thi", True, [Thinking("a</thi")]),
        # What is no call is content, with its tags and the space before them.
        (
            "glm-4.7",
            "x <tool_call></tool_call> y",
            False,
            [Content("x <tool_call></tool_call>y")],
        ),
    ],
)
def test_cases(name: str, text: str, think: Think | None, expected: list[Event]) -> None:
    assert events_of(name, text, think=think) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"get_weather{CITY}{DAYS}</tool_ca", [PARIS]),
        (f"get_weather{CITY}", [Call("get_weather", {"city": "Paris"})]),
        # Not all is there, or not to be believed.
        (f"get_weather{DAYS}</tool_ca", None),
        (f"x{DAYS}", None),
        ("get_weather<arg_key>city<arg_value>Paris</arg_value>", None),
        (f"get_weather{CITY}<arg_key>days", None),
        (f"get_weather{CITY}<arg_key>days</arg_key>", None),
        (f"get_weather{CITY}<arg_key></arg_key><arg_value>x</arg_value>", None),
        ("", None),
    ],
)
def test_a_call_without_its_end(body: str, expected: list[Event] | None) -> None:
    text = "<tool_call>" + body
    assert events_of("glm-4.7", text, think=False) == (expected or [Content(text)])


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        (
            "get_weather\n<arg_key>city</arg_key>\n<arg_value>a & b < c</arg_value>\n",
            "get_weather",
            {"city": "a & b < c"},
        ),
        ("get_weather", "get_weather", {}),
        (
            "get_weather city</arg_key><arg_value>Paris</arg_value>",
            "get_weather",
            {"city": "Paris"},
        ),
        ("get_weather<arg_key>city<arg_value>Paris", "get_weather", {"city": "Paris"}),
        (
            "get_weather<arg_key>city</arg_key><arg_value>Paris<arg_key>days</arg_key>"
            "<arg_value>3</arg_value>",
            "get_weather",
            {"city": "Paris", "days": 3},
        ),
        ("get_weather<arg_key>city</arg_key>Paris</arg_value>", "get_weather", {"city": "Paris"}),
        ("unknown<arg_key>x</arg_key><arg_value>1</arg_value>", "unknown", {"x": "1"}),
        # Further repairs.
        ("f city<arg_value>Paris", "f", {"city": "Paris"}),
        ("f<arg_key>a</arg_key>1<arg_key>b</arg_key><arg_value>2", "f", {"a": "1", "b": "2"}),
        ("f<arg_key>a<arg_key>b</arg_key><arg_value>2</arg_value>", "f", {"a": "", "b": "2"}),
        ("f<arg_key> a </arg_key> <arg_value>\n1\n</arg_value>", "f", {"a": "1"}),
    ],
)
def test_call_text(text: str, name: str, arguments: dict[str, Any]) -> None:
    assert read_glm_call(text, [WEATHER]) == Call(name, arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty function name"),
        ("</arg_key><arg_value>x", "empty function name"),
        (
            "get_weather<arg_key>city</arg_key>",
            "mismatched arg_key and arg_value counts: 1 keys, 0 values",
        ),
        (f"get_weather{CITY}{CITY}", 'repeated argument "city"'),
    ],
)
def test_no_call_text(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read_glm_call(text, [WEATHER])
    assert str(error.value) == message


def test_without_repair_tags_must_nest() -> None:
    with pytest.raises(ValueError, match="do not nest"):
        read_glm_call("f<arg_key>a<arg_value>b", [], repair=False)


def test_thinking_is_streamed() -> None:
    parser = started("glm-4.7")
    assert parser.feed("a b </th") == [Thinking("a b")]
    assert parser.feed("e") == [Thinking(" </the")]
