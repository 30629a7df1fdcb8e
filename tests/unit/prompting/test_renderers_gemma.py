"""renderers-and-parsers.md 3.5, 3.6 and the Cases: gemma4 and functiongemma."""

from __future__ import annotations

from typing import Any

import pytest
from support.conversations import (
    BIG,
    CW,
    NUMBERS,
    VALUES,
    WEATHER,
    assistant,
    call,
    prompt,
    result,
    system,
    tool,
    user,
)

from ollamad.wire import Message, ToolProperty

HI = user("Hi")
USER_HI = "<|turn>user\nHi<turn|>\n"
MODEL = "<|turn>model\n"
THOUGHT = "<|channel>thought\n"


def gemma(*messages: Message, large: bool = False, **kwargs: Any) -> str:
    text = prompt("gemma4-large" if large else "gemma4", messages, **kwargs)
    assert text.startswith("<bos>")
    return quoted(text.removeprefix("<bos>"))


def quoted(text: str) -> str:
    """The quotes as single letters, which no text of these tests has."""
    return text.replace('<|"|>', "Q")


def response(name: str, value: str) -> str:
    return f"<|tool_response>response:{name}{{value:Q{value}Q}}<tool_response|>"


# --- gemma4: turns --------------------------------------------------------------------------------


def test_a_final_answer_is_closed() -> None:
    assert gemma(HI, assistant("Par")) == f"{USER_HI}{MODEL}Par<turn|>\n{MODEL}"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_first_message_may_be_the_system_text(role: str) -> None:
    first = Message(role=role, content=" S \n")
    assert gemma(first, HI) == f"<|turn>system\nS<turn|>\n{USER_HI}{MODEL}"
    assert gemma(first, HI, think=True).startswith("<|turn>system\n<|think|>\nS<turn|>\n")
    later = f"{USER_HI}<|turn>{role}\nS<turn|>\n{MODEL}"
    assert gemma(HI, first) == later


def test_an_empty_system_message_has_its_turn() -> None:
    assert gemma(system(""), HI).startswith("<|turn>system\n<turn|>\n")


def test_images_are_tagged_behind_trimming() -> None:
    assert "<|turn>user\n[img-0][img-1] pad<turn|>\n" in gemma(user("  pad \n", 2))


def test_images_of_lost_messages_keep_their_numbers() -> None:
    text = gemma(HI, result("lost", images=2), user("x", 1))
    assert text == f"{USER_HI}<|turn>user\n[img-2] x<turn|>\n{MODEL}"


def test_large_opens_and_closes_a_channel_unless_it_thinks() -> None:
    assert gemma(HI, large=True).endswith(f"{MODEL}{THOUGHT}<channel|>")
    assert gemma(HI, large=True, think=True).endswith(MODEL)
    messages = [HI, assistant("", call("f")), result("r")]
    assert gemma(*messages, large=True) == gemma(*messages)
    assert gemma(*messages[:2], large=True) == gemma(*messages[:2])


def test_thinking_is_written_behind_the_last_user_message() -> None:
    old, new = assistant("A", thinking="T1"), assistant("B", thinking="T2")
    text = gemma(HI, old, HI, new)
    assert f"{MODEL}A<turn|>\n" in text
    assert f"{MODEL}{THOUGHT}T2\n<channel|>B<turn|>\n" in text
    assert gemma(assistant("A", thinking="T")).startswith(f"{MODEL}{THOUGHT}T\n<channel|>A")


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ("a <|channel>x\ny<channel|> b", "a  b"),
        ("<|channel>x<channel|>a<|channel>y<channel|>", "a"),
        ("a<|channel>open", "a"),
        ("a<channel|>b", "a<channel|>b"),
    ],
)
def test_channels_are_cut_out_of_answers(content: str, kept: str) -> None:
    assert f"{MODEL}{kept}<turn|>\n" in gemma(HI, assistant(content), HI)
    assert f"<|turn>user\n{content}<turn|>\n" in gemma(user(content))


# --- gemma4: calls and results --------------------------------------------------------------------

F = "<|tool_call>call:f{}<tool_call|>"
CALLING = assistant("", call("f"))


@pytest.mark.parametrize(
    ("messages", "written"),
    [
        ([CALLING], f"{MODEL}{F}<|tool_response>"),
        ([assistant("C", call("f"))], f"{MODEL}{F}C<|tool_response>"),
        ([CALLING, result("r")], f"{MODEL}{F}{response('unknown', 'r')}"),
        (
            [assistant("C", call("f")), result("r")],
            f"{MODEL}{F}{response('unknown', 'r')}C<turn|>\n",
        ),
        ([CALLING, HI], f"{MODEL}{F}<|tool_response>{USER_HI}{MODEL}"),
        (
            [CALLING, result("r"), HI],
            f"{MODEL}{F}{response('unknown', 'r')}<turn|>\n{USER_HI}{MODEL}",
        ),
        (
            [CALLING, result("r"), assistant("A")],
            f"{MODEL}{F}{response('unknown', 'r')}A<turn|>\n{MODEL}",
        ),
        (
            [CALLING, result("r"), CALLING, result("s")],
            f"{MODEL}{F}{response('unknown', 'r')}{F}{response('unknown', 's')}",
        ),
        ([CALLING, assistant("A")], f"{MODEL}{F}<|tool_response>A<turn|>\n{MODEL}"),
        ([assistant("A"), assistant("B")], f"{MODEL}AB<turn|>\n{MODEL}"),
        ([assistant("A"), result("lost"), assistant("B")], f"{MODEL}AB<turn|>\n{MODEL}"),
        (
            [assistant("A"), HI, assistant("B")],
            f"{MODEL}A<turn|>\n{USER_HI}{MODEL}B<turn|>\n{MODEL}",
        ),
    ],
)
def test_how_turns_go_on_and_end(messages: list[Message], written: str) -> None:
    assert gemma(HI, *messages) == USER_HI + written


@pytest.mark.parametrize(
    ("messages", "end"),
    [
        ([HI], MODEL),
        ([CALLING, result("r")], f"<tool_response|>{THOUGHT}"),
        ([CALLING], "<|tool_response>"),
        ([HI, assistant("A")], f"A<turn|>\n{MODEL}"),
    ],
)
def test_generation_prompt_with_thinking(messages: list[Message], end: str) -> None:
    assert gemma(*messages, think=True).endswith(end)


def test_results_are_not_trimmed() -> None:
    assert response("unknown", " r\n") in gemma(HI, CALLING, result(" r\n"))


def test_names_of_results() -> None:
    calls = assistant("", call("f", id="1"), call("g", id="2"), call("h"))
    results = [
        result("a", id="2"),
        result("b", id="1", name="other"),
        result("c", name="named", id="3"),
        result("d"),
    ]
    expected = [("g", "a"), ("f", "b"), ("named", "c"), ("unknown", "d")]
    assert gemma(calls, *results).endswith("".join(response(*each) for each in expected))


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (VALUES, "f:1.5,l:[1,QxQ],n:null,o:{a:Q<Q,b:1},t:true"),
        (NUMBERS, "a:1000000,b:2097152,c:1.2345675e+06,d:1e+20,e:1e-05"),
        ({"n": BIG}, "n:1.2345678901234567e+19"),
        ({"s": 'a "b" \n\\', "e": [], "o": {}}, 'e:[],o:{},s:Qa "b" \n\\Q'),
        (
            {"a": -(2.0**63), "b": 2.0**63, "c": -0.5},
            "a:-9223372036854775808,b:9.223372036854776e+18,c:-0.5",
        ),
    ],
)
def test_arguments(arguments: dict[str, Any], written: str) -> None:
    assert f"call:f{{{written}}}<tool_call|>" in gemma(HI, assistant("", call("f", arguments)))
    text = prompt("functiongemma", [HI, assistant("", call("f", arguments))])
    escaped = written.replace("Q", "<escape>")
    assert f"<start_function_call>call:f{{{escaped}}}<end_function_call>" in text


# --- gemma4: declarations -------------------------------------------------------------------------


def declared(declaration: Any) -> str:
    """What stands in the braces of the declaration behind the description."""
    text = gemma(HI, tools=[declaration])
    start = "<|turn>system\n<|tool>declaration:f{description:QDQ"
    assert text.startswith(start)
    return text.removeprefix(start).partition("}<tool|><turn|>\n")[0]


@pytest.mark.parametrize(
    ("properties", "type", "required", "written"),
    [
        (None, "", [], ""),
        (None, "object", [], ",parameters:{type:QOBJECTQ}"),
        ({}, "", [], ",parameters:{}"),
        ({}, "object", ["a", "b"], ",parameters:{required:[QaQ,QbQ],type:QOBJECTQ}"),
        ({"p": ToolProperty()}, "", [], ",parameters:{properties:{p:{}}}"),
    ],
)
def test_parameters(
    properties: dict[str, ToolProperty] | None, type: str, required: list[str], written: str
) -> None:
    declaration = tool("f", properties, description="D", type=type, required=required)
    assert declared(declaration) == written


def test_several_tools_follow_the_system_text() -> None:
    text = gemma(system("S"), HI, tools=[tool("f", type=""), tool("g", type="")])
    one = "<|tool>declaration:{}{{description:QQ}}<tool|>"
    assert text.startswith(f"<|turn>system\nS{one.format('f')}{one.format('g')}<turn|>\n")


BARE = [ToolProperty(type="string"), ToolProperty(type=["null", "string"])]


@pytest.mark.parametrize(
    ("declaration", "written"),
    [
        (ToolProperty(), ""),
        (ToolProperty(description="d"), "description:QdQ"),
        (ToolProperty(type="integer", enum=[1]), "type:QINTEGERQ"),
        (
            ToolProperty(type="string", enum=["a", "b<"], description="d"),
            "description:QdQ,enum:[QaQ,Qb<Q],type:QSTRINGQ",
        ),
        (ToolProperty(type="array"), "type:QARRAYQ"),
        (
            ToolProperty(type="array", items={"type": "string"}),
            "items:{type:QSTRINGQ},type:QARRAYQ",
        ),
        (ToolProperty(type="string", items={"type": "string"}), "type:QSTRINGQ"),
        (ToolProperty(type="object"), "properties:{},type:QOBJECTQ"),
        (
            ToolProperty(
                type="object",
                properties={"z": ToolProperty(type="string"), "a": ToolProperty()},
                required=["z"],
            ),
            "properties:{a:{},z:{type:QSTRINGQ}},required:[QzQ],type:QOBJECTQ",
        ),
        (
            ToolProperty(type=["string", "null"], enum=["a"], description="d"),
            "description:QdQ,type:Q['STRING', 'NULL']Q",
        ),
        (ToolProperty(anyOf=BARE), "type:Q['STRING', 'NULL']Q"),
        (ToolProperty(anyOf=BARE[:1], enum=["a"]), "enum:[QaQ],type:QSTRINGQ"),
        (
            ToolProperty(anyOf=[*BARE, ToolProperty(type="array", items={"type": "number"})]),
            "",
        ),
        (ToolProperty(anyOf=[*BARE, ToolProperty()]), ""),
        (
            ToolProperty(type="object", properties={"p": ToolProperty(type=["a", "b"])}),
            "properties:{p:{type:Q['A', 'B']Q}},type:QOBJECTQ",
        ),
    ],
)
def test_properties(declaration: ToolProperty, written: str) -> None:
    text = declared(tool("f", {"name": declaration}, description="D", type=""))
    assert text == f",parameters:{{properties:{{name:{{{written}}}}}}}"


def test_properties_are_sorted_and_keywords_left_out() -> None:
    names = ("z", "type", "description", "nullable", "properties", "required", "b")
    declaration = tool("f", {n: ToolProperty() for n in names}, description="D", type="")
    assert declared(declaration) == ",parameters:{properties:{b:{},z:{}}}"


@pytest.mark.parametrize(
    ("items", "written"),
    [
        ({"type": ["string", "null"]}, "type:[QSTRINGQ,QNULLQ]"),
        ({"required": ["b", "a"], "type": "object"}, "required:[QbQ,QaQ],type:QOBJECTQ"),
        (
            {"x": None, "d": "t", "n": 1000000, "f": 1.5, "b": True, "l": [None, 1], "o": {"k": 1}},
            "b:true,d:QtQ,f:1.5,l:[null,1],n:1000000,o:{QkQ:1}",
        ),
        (
            {
                "properties": {
                    "type": {"type": "string"},
                    "s": {"type": "string", "enum": ["v"], "nullable": True, "description": "d"},
                    "a": {"type": "array", "items": {"type": "integer"}, "nullable": False},
                    "u": {"type": ["string", "null"], "enum": ["v"]},
                    "j": "no schema",
                }
            },
            "properties:{a:{items:{type:QINTEGERQ},type:QARRAYQ},"
            "s:{description:QdQ,enum:[QvQ],nullable:true,type:QSTRINGQ},"
            "u:{enum:[QvQ],type:[QSTRINGQ,QNULLQ]}}",
        ),
        (
            {
                "properties": {
                    "o": {"type": "object", "properties": {"p": {}}, "required": ["p"]},
                    "own": {"type": "object", "q": {"type": "number"}, "x": 1, "nullable": True},
                    "none": {"type": "object"},
                    "any": {"anyOf": [{"type": "string"}]},
                }
            },
            "properties:{any:{},none:{properties:{},type:QOBJECTQ},"
            "o:{properties:{p:{}},required:[QpQ],type:QOBJECTQ},"
            "own:{nullable:true,properties:{q:{type:QNUMBERQ}},type:QOBJECTQ}}",
        ),
    ],
)
def test_items(items: dict[str, Any], written: str) -> None:
    declaration = tool(
        "f", {"p": ToolProperty(type="array", items=items)}, description="D", type=""
    )
    inner = f"items:{{{written}}},type:QARRAYQ"
    assert declared(declaration) == f",parameters:{{properties:{{p:{{{inner}}}}}}}"


@pytest.mark.parametrize("items", [True, {}, [], "x"])
def test_items_that_say_nothing(items: Any) -> None:
    declaration = tool(
        "f", {"p": ToolProperty(type="array", items=items)}, description="D", type=""
    )
    assert declared(declaration) == ",parameters:{properties:{p:{type:QARRAYQ}}}"


# --- functiongemma --------------------------------------------------------------------------------

MODEL_TURN = "<start_of_turn>model\n"
END = "<end_of_turn>\n"
HEAD = "You can do function calling with the following functions:"
RESPONSE = "<start_function_response>"


def small(*messages: Message, **kwargs: Any) -> str:
    text = prompt("functiongemma", messages, **kwargs)
    assert text.startswith("<bos>")
    return text.removeprefix("<bos>").replace("<escape>", "Q")


def plain(role: str, content: str) -> str:
    return f"<start_of_turn>{role}\n{content}{END}"


def answered(name: str, value: str) -> str:
    return f"response:{name}{{Q{value}Q}}<end_function_response>"


CALL_F = "<start_function_call>call:f{}<end_function_call>"


def test_function_developer_turn() -> None:
    ping = tool("ping", type="")
    declaration = (
        "<start_function_declaration>declaration:ping{description:QQ}<end_function_declaration>"
    )
    rest = plain("user", "Hi") + MODEL_TURN
    for role in ("system", "developer"):
        first = Message(role=role, content=" S ")
        assert small(first, HI) == plain("developer", "S") + rest
        both = plain("developer", f"S\n{HEAD}{declaration}")
        assert small(first, HI, tools=[ping]) == both + rest
    assert small(HI, tools=[ping]) == plain("developer", HEAD + declaration) + rest
    assert small(system(HEAD), HI, tools=[ping]) == (
        plain("developer", f"{HEAD}\n{declaration}") + rest
    )
    assert small(system(""), HI) == rest


def test_function_properties_have_description_and_type_only() -> None:
    declaration = tool(
        "f",
        {
            "z": ToolProperty(type=["array", "null"], items={"type": "string"}, enum=["x"]),
            "a": ToolProperty(description="d"),
        },
        required=["z"],
    )
    assert (
        "f{description:QQ,parameters:{properties:{a:{description:QdQ},"
        "z:{description:QQ,type:QARRAYQ}},required:[QzQ],type:QOBJECTQ}}<end_function_declaration>"
    ) in small(HI, tools=[declaration])
    assert "f{description:QQ,parameters:{}}<end" in small(HI, tools=[tool("f", {}, type="")])


def test_function_turns_are_trimmed_and_closed() -> None:
    messages = [user(" a "), assistant(" b\n"), Message(role="critic", content=" c ")]
    assert small(*messages) == (
        plain("user", "a") + plain("model", "b") + plain("critic", "c") + MODEL_TURN
    )
    assert small(HI, assistant("Par")) == plain("user", "Hi") + plain("model", "Par") + MODEL_TURN


def test_function_calls_and_results() -> None:
    calls = assistant("C", call("f"), call("g"))
    opened = f"{MODEL_TURN}C{CALL_F}<start_function_call>call:g{{}}<end_function_call>"
    first = opened + RESPONSE + answered("f", "1")
    assert small(calls) == f"{opened}{END}{MODEL_TURN}"
    assert small(calls, result("1")) == first
    assert small(calls, result("1"), result("2")) == first + RESPONSE + answered("g", "2")
    third = small(calls, result("1"), result("2"), result("3"))
    assert third.endswith(answered("g", "2") + RESPONSE + answered("", "3"))


def test_function_what_follows_results() -> None:
    calls = assistant("", call("f"))
    start = f"{MODEL_TURN}{CALL_F}{RESPONSE}{answered('f', '1')}"
    assert small(calls, result("1"), HI) == f"{start}Hi{END}{MODEL_TURN}"
    assert small(calls, result("1"), assistant("A")) == f"{start}A{END}{MODEL_TURN}"
    assert small(calls, result("1"), calls, result("2")) == (
        f"{start}{CALL_F}{RESPONSE}{answered('f', '2')}"
    )
    # Another role has its turn, and the results stay the last word.
    assert small(calls, result("1"), system("S")) == start + plain("system", "S")
    assert small(calls, result("1"), system("S"), HI) == (
        f"{start}{plain('system', 'S')}Hi{END}{MODEL_TURN}"
    )


def test_function_results_without_calls_have_no_name() -> None:
    orphan = result("r", name="named", id="1")
    assert small(HI, orphan) == f"{plain('user', 'Hi')}{RESPONSE}{answered('', 'r')}"
    assert small(assistant("A"), orphan) == f"{plain('model', 'A')}{RESPONSE}{answered('', 'r')}"


def test_function_names_come_from_the_nearest_calls() -> None:
    messages = [assistant("", call("f")), result("1"), HI, assistant("A"), HI, result("2")]
    assert small(*messages).endswith(f"{RESPONSE}{answered('', '2')}")
    messages = [assistant("", call("f"), call("g")), result("1"), HI, assistant("A"), result("2")]
    assert small(*messages).endswith(f"{RESPONSE}{answered('g', '2')}")


def test_function_ignores_thinking() -> None:
    assert small(*CW, tools=[WEATHER], think=True) == small(*CW, tools=[WEATHER], think=False)
    assert "Need the tool." not in small(*CW, think=True)
