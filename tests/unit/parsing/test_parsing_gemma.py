"""The worked examples and cases of gemma4 (3.5), functiongemma (3.6) and passthrough (3.17)."""

from typing import Any

import pytest
from support.answers import WEATHER, events_of, started

from ollamad.parsing.events import Call, Content, Event, Thinking
from ollamad.parsing.families.gemma4_call import read_call
from ollamad.parsing.families.registry import find_parser
from ollamad.wire import Message

Q = '<|"|>'
CALL = f"<|tool_call>call:get_weather{{city:{Q}Paris{Q},days:2}}<tool_call|>"
PARIS = Call("get_weather", {"city": "Paris", "days": 2})
TOOL = Message(role="tool", content="22C")
EXAMPLE = f"<|channel>thought\nLet me see\n<channel|>Sure.{CALL}<|tool_response>"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("call:get_weather{city:'Paris'}", {"city": "Paris"}),
        (f"call:get_weather{{city:{Q}Paris}}", {"city": "Paris"}),
        ("call:get_weather{city:Paris,days:2}", {"city": "Paris", "days": 2}),
        ('call:get_weather{"city":"Paris"}', {"city": "Paris"}),
        (
            f'call:get_weather{{city:{Q}a "q" b{Q},n:{{x:[1,true,null]}}}}',
            {"city": 'a "q" b', "n": {"x": [1, True, None]}},
        ),
        (f"call:get_weather{{city:{Q}x", {"city": "x"}),
        ("call:get_weather{city:5 rue, Paris,days:2}", None),
        ("get_weather{}", None),
        ("call:get_weather{}", {}),
        (" call: get_weather {}\n", {}),
        (f"call:get_weather{{city:{Q}a:b,c:{Q}}}", {"city": "a:b,c:"}),
        ('call:get_weather{"city": "a:b,c:1"}', {"city": "a:b,c:1"}),
        (f"call:get_weather{{city:'Paris'{Q},days:2}}", {"city": "Paris", "days": 2}),
        ("call:get_weather{city:'Paris'", {"city": "Paris"}),
        ("call:get_weather{city:new york}", {"city": "new york"}),
        (f"call:get_weather{{city:{Q}line 1\nline 2 \\ {Q}}}", {"city": "line 1\nline 2 \\ "}),
        ("call:get_weather{days:2,city:Le Mans, Sarthe}", {"days": 2, "city": "Le Mans, Sarthe"}),
        ("call:get_weather{place:Paris}", None),
        ("call:get_weather{city:true}", {"city": True}),
        ("call:get_weather[1]", None),
        ("call:{}", None),
        ("call:get_weather", None),
        ("", None),
    ],
)
def test_gemma4_call_text(text: str, arguments: dict[str, Any] | None) -> None:
    expected = None if arguments is None else Call("get_weather", arguments)
    assert read_call(text, [WEATHER]) == expected


def test_gemma4_raw_text_is_repaired_only_for_declared_strings() -> None:
    assert read_call("call:get_weather{city:Paris}", []) is None


def test_gemma4_worked_example() -> None:
    assert events_of("gemma4", EXAMPLE) == [Thinking("Let me see"), Content("Sure."), PARIS]
    for name, think in (("gemma4", False), ("gemma4", None), ("gemma4-no-thinking", True)):
        assert events_of(name, EXAMPLE, think=think) == [Content("Sure."), PARIS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|channel>thou", [Thinking("thou")]),
        ("<|channel>thought\n<channel|>a", [Content("a")]),
        ("<|channel>thought a", [Thinking("thought a")]),
        (
            "a <|channel>final\nxx<channel|> b",
            [Content("a"), Thinking("final\nxx"), Content("b")],
        ),
        (f"a {CALL} <|channel>b<channel|>", [Content("a"), PARIS, Thinking("b")]),
        (f"{CALL} <tool_call|>\n<|tool_response> \n{CALL}", [PARIS, PARIS]),
        (f"{CALL} <tool_ca", [PARIS, Content("<tool_ca")]),
        (f"{CALL}\nfine ", [PARIS, Content("fine ")]),
        (" a \n", [Content(" a \n")]),
        (
            f"a <|tool_call>call:get_weather{{city:{Q}x",
            [Content("a"), Call("get_weather", {"city": "x"})],
        ),
        ("<|tool_call>call:get_weather{days:2}<tool_", [Call("get_weather", {"days": 2})]),
        ("a <|tool_call>call:get", [Content("a <|tool_call>call:get")]),
        (
            "a <|tool_call>get_weather{}<tool_call|> b",
            [Content("a <|tool_call>get_weather{}<tool_call|> b")],
        ),
        (
            "<|tool_call>get_weather{}<tool_call|><|tool_response> b",
            [Content("<|tool_call>get_weather{}<tool_call|>b")],
        ),
    ],
)
def test_gemma4_cases(text: str, expected: list[Event]) -> None:
    assert events_of("gemma4", text) == expected


def test_gemma4_goes_on_with_the_reasoning_after_a_tool() -> None:
    assert events_of("gemma4", "abc<channel|>def", last=TOOL) == [Thinking("abc"), Content("def")]
    assert events_of("gemma4", "thought\nabc", last=TOOL) == [Thinking("thought\nabc")]
    assert events_of("gemma4", "abc", last=TOOL, think=False) == [Content("abc")]
    assert events_of("gemma4-no-thinking", "abc", last=TOOL) == [Content("abc")]


def test_gemma4_streams() -> None:
    parser = started("gemma4")
    assert parser.feed("<|channel>thou") == []
    assert parser.feed("ght\nLet me ") == [Thinking("Let me")]
    assert parser.feed("see<channel|>") == [Thinking(" see")]
    assert parser.feed("Sure. <|") == [Content("Sure.")]
    assert parser.feed("x") == [Content(" <|x")]


def test_functiongemma_worked_example() -> None:
    text = (
        "Sure <start_function_call>call:get_weather{city:<escape>Paris, FR<escape>,days:2,ok:true,"
        "l:[1,<escape>a<escape>],o:{k:<escape>v<escape>}}<end_function_call> tail"
    )
    arguments = {"city": "Paris, FR", "days": 2, "ok": True, "l": [1, "a"], "o": {"k": "v"}}
    assert events_of("functiongemma", text) == [
        Content("Sure "),
        Call("get_weather", arguments),
        Content(" tail"),
    ]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        # Not a:12 as in the reference: a number is one only as a whole.
        (
            "a:12abc,d:<escape>x,y}<escape>,e:hello world,g:{}",
            {"a": "12abc", "d": "x,y}", "e": "hello world", "g": {}},
        ),
        ("", {}),
        ("l:[]", {"l": []}),
        ("l:[[1,2],[{a:1.5}]]", {"l": [[1, 2], [{"a": 1.5}]]}),
        ("a:false,b:-3,c:", {"a": False, "b": -3, "c": ""}),
        ("a:[1,2,b:3", {"a": "[1,2,b:3"}),
        ("a:{b},c:1", {"a": "{b}", "c": 1}),
        ("t:<escape>1<escape>,u:<escape>a\nb<escape>", {"t": "1", "u": "a\nb"}),
        ("t:x:y", {"t": "x:y"}),
    ],
)
def test_functiongemma_arguments(text: str, arguments: dict[str, Any]) -> None:
    answer = f"<start_function_call>call:f{{{text}}}<end_function_call>"
    assert events_of("functiongemma", answer) == [Call("f", arguments)]


@pytest.mark.parametrize(
    "text",
    [
        "a <start_function_call>call:f{a}<end_function_call> b",
        "a <start_function_call>f{a:1}<end_function_call> b",
        "a <start_function_call>call:{}<end_function_call> b",
        "a <start_function_call><end_function_call> b",
        "a <start_function_call>call:f{a:1} ",
        "a <start_func",
        " a \n",
    ],
)
def test_functiongemma_gives_what_is_no_call_as_it_stands(text: str) -> None:
    assert events_of("functiongemma", text) == [Content(text)]


def test_functiongemma_reads_deep_nesting_as_text() -> None:
    value = "[" * 3000 + "]" * 3000
    parser = started("functiongemma")
    (call,) = parser.feed(f"<start_function_call>call:f{{a:{value}}}<end_function_call>")
    assert isinstance(call, Call)
    inner = call.arguments["a"]
    while isinstance(inner, list):
        (inner,) = inner
    assert inner == value[50:-50]


def test_passthrough_is_as_it_is() -> None:
    text = " <think>a</think> <tool_call>{}</tool_call> \n"
    assert events_of("passthrough", text) == [Content(text)]


@pytest.mark.parametrize(
    ("name", "tools", "thinks", "tokens"),
    [
        ("passthrough", False, False, ()),
        ("functiongemma", True, False, ("<start_function_call>", "<end_function_call>")),
        (
            "gemma4",
            True,
            True,
            ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", Q),
        ),
        (
            "gemma4-no-thinking",
            True,
            False,
            ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", Q),
        ),
    ],
)
def test_what_the_parsers_can_do(
    name: str, tools: bool, thinks: bool, tokens: tuple[str, ...]
) -> None:
    parser = find_parser(name)
    assert parser is not None
    assert (parser.has_tools, parser.has_thinking) == (tools, thinks)
    assert parser.preserved_tokens == tokens
