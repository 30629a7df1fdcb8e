"""Conversations through Go templates: prompting.md 3, C2, C3 and the template rows of C7."""

from datetime import date
from typing import Any

import pytest

from ollamad.errors import OllamadError
from ollamad.prompting.template import TemplateSyntaxError, parse_template
from ollamad.wire import (
    Message,
    Think,
    Tool,
    ToolCall,
    ToolCallFunction,
    ToolFunction,
    ToolFunctionParameters,
    ToolProperty,
)

ROLES = {"S": "system", "u": "user", "a": "assistant", "t": "tool"}


def said(*pairs: tuple[str, str]) -> list[Message]:
    return [Message(role=ROLES.get(role, role), content=content) for role, content in pairs]


def tool(properties: dict[str, ToolProperty] | None, **function: Any) -> Tool:
    parameters = ToolFunctionParameters(
        type="object", properties=properties, required=function.pop("required", [])
    )
    return Tool(type="function", function=ToolFunction(name="f", parameters=parameters, **function))


def calling(arguments: dict[str, Any], **message: Any) -> Message:
    function = ToolCallFunction(index=0, name="get_weather", arguments=arguments)
    call = ToolCall(id="call_1", function=function)
    return Message(role="assistant", content="", tool_calls=[call], **message)


def in_messages(body: str) -> str:
    return "{{ range .Messages }}" + body + "{{ end }}"


# --- the variable set, and what is refused when parsed --------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ .Prompt }}", {"prompt", "response"}),
        (
            "{{ with .Tools }}{{ . }}{{ end }} {{ .System }} {{ .Prompt }}",
            {"prompt", "response", "system", "tools"},
        ),
        ("{{ if gt (len .Messages) 0 }}x{{ end }}", {"messages"}),
        ("{{ .Response }}", {"response"}),
        ('{{ define "x" }}{{ .Messages }}{{ end }}', {"messages"}),
        ("static", {"response"}),
    ],
)
def test_the_variables_after_parsing(text: str, names: set[str]) -> None:
    template = parse_template(text)
    assert template.variables == names
    assert template.text == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{{define "x"}}{{template "x"}}{{end}}{{template "x"}}', "undefined template specified"),
        ("{{ .X", "template: :1: unclosed action"),
        ("\n{{ nope }}", 'template: :2: function "nope" not defined'),
    ],
)
def test_texts_that_are_no_templates(text: str, message: str) -> None:
    with pytest.raises(TemplateSyntaxError) as error:
        parse_template(text)
    assert str(error.value) == message


def test_a_response_is_appended_whatever_the_text_ends_with() -> None:
    assert parse_template("{{ .Prompt }}{").render(said(("u", "a"), ("a", "b"))) == "a{b"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ('{{ .Tools }}{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ end }}', True),
        ("{{ .Tools }}{{ .ToolCalls }}<tool_response>", True),
        ("{{ .Tools }}{{ .ToolCalls }}[TOOL_RESULTS]", True),
        ("{{ .Tools }}{{ .ToolCalls }}", False),
        ("{{ .Tools }}<tool_response>", False),
    ],
)
def test_the_tool_round_trip(text: str, has: bool) -> None:
    assert parse_template(text).has_tool_round_trip is has


def test_the_tags_of_a_template() -> None:
    template = parse_template(
        in_messages(
            "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"
            "{{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{{ . }}{{ end }}{{ end }}"
        )
    )
    assert template.thinking_tags == ("<think>", "</think>")
    assert template.tool_tag == "<tool_call>"


# --- messages -------------------------------------------------------------------------------------


def test_messages_are_collated() -> None:
    text = "{{ range .Messages }}({{ .Role }}={{ .Content }}){{ end }} sys={{ .System }}"
    messages = said(
        *(("u", "a"), ("u", "b"), ("a", "c"), ("a", "d"), ("t", "t1"), ("t", "t2")),
        *(("S", "S"), ("S", "S2"), ("u", "z")),
    )
    assert parse_template(text).render(messages) == (
        "(user=a\n\nb)(assistant=c\n\nd)(tool=t1)(tool=t2)(system=S\n\nS2)(user=z) sys=S\n\nS2"
    )
    assert messages[0].content == "a"


def test_of_merged_messages_the_first_keeps_the_rest() -> None:
    first = calling({}, thinking="t1", images=[b"1"])
    second = Message(role="assistant", content="b", thinking="t2", images=[b"2", b"3"])
    text = in_messages("{{ .Content }}|{{ .Thinking }}|{{ len .Images }}|{{ len .ToolCalls }}")
    assert parse_template(text).render([first, second]) == "\n\nb|t1|1|1"


def test_images_count_in_a_template() -> None:
    text = in_messages("<{{ .Role }}|{{ .Content }}{{ if .Images }}|{{ len .Images }}{{ end }}>")
    messages = [
        *said(("S", "SYS"), ("u", "mu"), ("a", "ma")),
        Message(role="user", content="[img-0]a", images=[b"1"]),
        Message(role="user", content="[img-1]b", images=[b"2"]),
    ]
    assert parse_template(text).render(messages) == (
        "<system|SYS><user|mu><assistant|ma><user|[img-0]a\n\n[img-1]b|1>"
    )


@pytest.mark.parametrize(
    ("think", "shown"),
    [
        (None, "false  false"),
        (True, "true medium true"),
        (False, "false  true"),
        ("low", "true low true"),
        ("max", "true max true"),
    ],
)
@pytest.mark.parametrize("rest", ["{{ range .Messages }}{{ end }}", "{{ .Response }}"])
def test_think_in_messages_and_legacy(think: Think | None, shown: str, rest: str) -> None:
    template = parse_template("{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}" + rest)
    assert template.render(said(("u", "")), think=think) == shown


def test_absent_and_empty_tools() -> None:
    template = parse_template("{{ range .Messages }}{{ end }}{{ .Tools }}{{ if .Tools }}x{{ end }}")
    assert template.render([]) == "null"
    assert template.render([], tools=[]) == "[]"


def test_values_of_another_context_are_absent() -> None:
    assert parse_template(in_messages("m") + "{{ .Prompt }}").render(said(("u", "a"))) == (
        "m<no value>"
    )
    assert parse_template("{{ .Tools }}{{ .Response }}").render(said(("u", "a")), tools=[]) == (
        "<no value>"
    )


def test_an_unknown_field_of_a_message_is_an_error() -> None:
    template = parse_template("{{ range .Messages }}{{ .Nope }}{{ end }}")
    with pytest.raises(OllamadError) as error:
        template.render(said(("u", "a")))
    assert error.value.status == 500
    assert error.value.message.startswith("template: :1:")
    assert error.value.message.endswith(
        "can't evaluate field Nope in type *template.templateMessage"
    )


# --- printed forms --------------------------------------------------------------------------------


def test_the_example_of_the_contract() -> None:
    text = (
        '{{ range .Messages }}{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", '
        '"arguments": {{ .Function.Arguments }}}{{ end }}{{ end }}{{ .Tools }}'
    )
    properties = {"city": ToolProperty(type="string"), "days": ToolProperty(type="integer")}
    message = calling({"b": 1, "a": "<x>"})
    assert message.tool_calls is not None
    message.tool_calls[0].function.name = "f"
    assert parse_template(text).render([message], tools=[tool(properties)]) == (
        r'{"name": "f", "arguments": {"a":"\u003cx\u003e","b":1}}'
        '[{"type":"function","function":{"name":"f","description":"","parameters":'
        '{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}}}}}]'
    )


def test_a_tool_without_parameters() -> None:
    parameters = ToolFunctionParameters(type="", properties=None)
    bare = Tool(type="function", function=ToolFunction(name="f", parameters=parameters))
    assert parse_template("{{ .Messages }}{{ .Tools }}").render([], tools=[bare]) == (
        '[][{"type":"function","function":{"name":"f","description":"",'
        '"parameters":{"type":"","properties":null}}}]'
    )


RICH = tool(
    {
        "zeta": ToolProperty(
            anyOf=[ToolProperty(type="string"), ToolProperty(type=["integer", "null"])],
            type=["object"],
            items={"z": 1, "a": [2.5, True]},
            description="<d>",
            enum=["x", 1, {"q": 1, "b": 2}],
            properties={"y": ToolProperty(type="number"), "x": ToolProperty()},
            required=["y"],
        ),
        "alpha": ToolProperty(type=["string", "null"]),
    },
    description="does it",
    required=["zeta"],
)
RICH_PARAMETERS = (
    '{"type":"object","required":["zeta"],"properties":{"alpha":{"type":["string","null"]},'
    '"zeta":{"anyOf":[{"type":"string"},{"type":["integer","null"]}],"type":"object",'
    r'"items":{"a":[2.5,true],"z":1},"description":"\u003cd\u003e",'
    '"enum":["x",1,{"b":2,"q":1}],"properties":{"y":{"type":"number"},"x":{}},'
    '"required":["y"]}}}'
)
RICH_FUNCTION = f'{{"name":"f","description":"does it","parameters":{RICH_PARAMETERS}}}'
RICH_JSON = f'{{"type":"function","function":{RICH_FUNCTION}}}'


def with_tool(body: str, used: Tool = RICH) -> str:
    text = "{{ range .Messages }}{{ end }}{{ range .Tools }}" + body + "{{ end }}"
    return parse_template(text).render([], tools=[used])


@pytest.mark.parametrize(
    ("body", "printed"),
    [
        ("{{ . }}", RICH_JSON),
        ("{{ json . }}", RICH_JSON),
        ("{{ print . }}", RICH_JSON),
        ("{{ $.Tools }}{{ json $.Tools }}", f"[{RICH_JSON}][{RICH_JSON}]"),
        ("{{ .Function }}", RICH_FUNCTION),
        ("{{ .Function.Parameters }}", RICH_PARAMETERS),
        ("{{ .Type }} {{ .Items }} {{ .Function.Name }}", "function <no value> f"),
        ("{{ .Function.Parameters.Required }}", "[zeta]"),
        (
            "{{ range $n, $p := .Function.Parameters.Properties }}{{ $n }}:{{ $p.Type }};{{ end }}",
            "alpha:[string null];zeta:object;",
        ),
        ("{{ len .Function.Parameters.Properties }}", "2"),
        (
            "{{ range .Function.Parameters.Properties }}{{ .Enum }}{{ end }}",
            "[][x 1 map[b:2 q:1]]",
        ),
        (
            "{{ range .Function.Parameters.Properties }}{{ . }}{{ break }}{{ end }}",
            '{"type":["string","null"]}',
        ),
        (
            "{{ range .Function.Parameters.Properties }}{{ toTypeScriptType . }};{{ end }}",
            "string | null;string | number | null;",
        ),
    ],
)
def test_printed_forms_of_tools(body: str, printed: str) -> None:
    assert with_tool(body) == printed


def test_absent_properties_print_as_an_empty_object() -> None:
    assert with_tool("{{ .Function.Parameters.Properties }}", tool(None)) == "{}"


def test_an_unknown_field_of_a_tool_is_an_error() -> None:
    with pytest.raises(OllamadError, match="can't evaluate field Nope"):
        with_tool("{{ .Function.Parameters.Nope }}")


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ("string", "string"),
        ("integer", "number"),
        ("number", "number"),
        ("boolean", "boolean"),
        ("array", "any[]"),
        ("object", "Record<string, any>"),
        ("null", "null"),
        ("date", "any"),
        ("", "any"),
        ([], "any"),
        (["string", "date", "null"], "string | any | null"),
    ],
)
def test_typescript_types(types: str | list[str], text: str) -> None:
    body = "{{ range .Function.Parameters.Properties }}{{ toTypeScriptType . }}{{ end }}"
    assert with_tool(body, tool({"p": ToolProperty(type=types)})) == text
    assert with_tool("{{ toTypeScriptType .Function }}") == "any"


@pytest.mark.parametrize(
    ("body", "printed"),
    [
        ("{{ .Function.Arguments }}", '{"city":"Paris","n":1000000}'),
        ("{{ json .Function.Arguments }}", '{"city":"Paris","n":1000000}'),
        ("{{ .Function.Name }} {{ .Function.Index }} {{ .ID }}", "get_weather 0 call_1"),
        (
            "{{ range $k, $v := .Function.Arguments }}{{ $k }}={{ $v }};{{ end }}",
            "city=Paris;n=1e+06;",
        ),
        ("{{ .Function.Arguments.city }}{{ .Function.Arguments.nope }}", "Paris<no value>"),
        (
            "{{ json $.Messages }}",
            '[{"Role":"assistant","Content":"","Thinking":"","Images":null,"ToolCalls":'
            '[{"ID":"call_1","Function":{"Index":0,"Name":"get_weather",'
            '"Arguments":{"city":"Paris","n":1000000}}}],"ToolName":"","ToolCallID":""}]',
        ),
    ],
)
def test_printed_forms_of_calls(body: str, printed: str) -> None:
    text = in_messages("{{ range .ToolCalls }}" + body + "{{ end }}")
    assert parse_template(text).render([calling({"n": 1000000, "city": "Paris"})]) == printed


def test_json_of_the_calls_of_a_message() -> None:
    message = calling({"city": "Paris"})
    assert parse_template(in_messages("{{ json .ToolCalls }}")).render([message]) == (
        '[{"ID":"call_1","Function":{"Index":0,"Name":"get_weather","Arguments":{"city":"Paris"}}}]'
    )


@pytest.mark.parametrize(
    ("value", "printed", "written"),
    [
        (94110, "94110", "94110"),
        (1.5, "1.5", "1.5"),
        (1000000, "1e+06", "1000000"),
        (2097152, "2.097152e+06", "2097152"),
        (1e21, "1e+21", "1e+21"),
        (True, "true", "true"),
        (None, "<no value>", "null"),
        ([1000000, None], "[1e+06 <nil>]", "[1000000,null]"),
    ],
)
def test_numbers_of_arguments(value: Any, printed: str, written: str) -> None:
    text = in_messages(
        "{{ range .ToolCalls }}{{ .Function.Arguments.v }} {{ json .Function.Arguments.v }} "
        "{{ .Function.Arguments }}{{ end }}"
    )
    rendered = parse_template(text).render([calling({"v": value})])
    assert rendered == f'{printed} {written} {{"v":{written}}}'


def test_missing_arguments_are_an_empty_object() -> None:
    text = in_messages("{{ range .ToolCalls }}{{ .Function.Arguments }}{{ end }}")
    assert parse_template(text).render([calling({})]) == "{}"


def test_fields_of_a_tool_result() -> None:
    message = Message(role="tool", content="22", tool_name="t", tool_call_id="c")
    text = in_messages(
        "{{ .ToolName }} {{ .ToolCallID }} {{ if .ToolCalls }}x{{ end }}{{ .Content }}"
    )
    assert parse_template(text).render([message]) == "t c 22"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("{{ json .Messages }}{{ json .nope }}", "[]null"),
        (r'{{ range .Messages }}{{ end }}{{ json "<&>é\u2028" }}', r'"\u003c\u0026\u003eé\u2028"'),
        (r'{{ range .Messages }}{{ end }}{{ json "\t\b\x01\"" }}', r'"\t\b\u0001\""'),
        ("{{ range .Messages }}{{ end }}{{ json 1.0 }} {{ json 3 }} {{ json 1e-7 }}", "1 3 1e-7"),
    ],
)
def test_json(value: str, written: str) -> None:
    assert parse_template(value).render([]) == written


# --- the date -------------------------------------------------------------------------------------

DATES = '{{ range .Messages }}{{ end }}{{ currentDate }} {{ yesterdayDate "x" "y" }}'


def test_dates() -> None:
    template = parse_template(DATES)
    assert template.render([], today=date(2026, 3, 1)) == "2026-03-01 2026-02-28"
    with pytest.raises(OllamadError, match="the date is not known here"):
        template.render([])


def test_the_date_takes_strings_only() -> None:
    template = parse_template("{{ .Messages }}{{ currentDate 3 }}")
    with pytest.raises(OllamadError, match="expected string; found 3"):
        template.render([], today=date(2026, 3, 1))


# --- legacy ---------------------------------------------------------------------------------------

DIALOG = said(("S", "S"), ("u", "u1"), ("a", "a1"), ("u", "u2"))
MARKED = "{{ if .System }}[S:{{ .System }}]{{ end }}[U:{{ .Prompt }}][A:"
INST = "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] "


@pytest.mark.parametrize(
    ("text", "messages", "prompt"),
    [
        ("{{ .Prompt }}", DIALOG, "u1a1u2"),
        (MARKED + "{{ .Response }}]</s>", DIALOG, "[S:S][U:u1][A:a1]</s>[U:u2][A:"),
        (
            MARKED + "{{ .Response }}]</s>",
            [*DIALOG, *said(("a", "a2"))],
            "[S:S][U:u1][A:a1]</s>[U:u2][A:a2",
        ),
        (MARKED, DIALOG, "[S:S][U:u1][A:a1[U:u2][A:"),
        ("[{{ if .Response }}R={{ .Response }}!{{ end }}]tail", DIALOG, "[R=a1!]tail["),
        ("[{{ $.Response }}]tail", said(("u", "u1"), ("a", "a1")), "[a1]tail"),
        (
            "[{{ $.Response }}]tail",
            said(("u", "u1"), ("a", "a1"), ("u", "u2")),
            "[a1]tail[]tail",
        ),
        ("static", DIALOG, "statica1static"),
        (
            "{{ .System }}|{{ .Prompt }}",
            said(("S", "S"), ("u", "a"), ("S", "S2"), ("u", "b")),
            "S|aS2|b",
        ),
        ("{{ .Prompt }}", said(("u", "a"), ("t", "t"), ("u", "b")), "b"),
        (
            INST,
            said(
                ("S", "You are a helpful assistant!"),
                *(("u", "Hello friend!"), ("a", "Hello human!"), ("u", "What is your name?")),
            ),
            "[INST] You are a helpful assistant!\n\nHello friend![/INST] Hello human!"
            "[INST] What is your name?[/INST] ",
        ),
        (
            "[INST] {{ .Prompt }}[/INST] ",
            said(
                *(("u", "Hello friend!"), ("a", "Hello human!"), ("u", "What is your name?")),
                ("a", "My name is Ollama and I"),
            ),
            "[INST] Hello friend![/INST] Hello human!"
            "[INST] What is your name?[/INST] My name is Ollama and I",
        ),
        # The last turn has the template's definitions and functions too.
        (
            '{{ define "x" }}<{{ . }}>{{ end }}{{ template "x" .Prompt }}{{ json .Prompt }}',
            said(("u", "a"), ("a", "b"), ("u", "c")),
            '<a>"a"b<c>"c"',
        ),
        ('{{ printf "%s-%s" .Response .Prompt }}', said(("u", "a")), "-%!s(MISSING)"),
        (
            "T:{{ .System }}:{{ .Prompt }}",
            said(("S", "SYS"), ("u", "mu"), ("a", "ma"), ("u", "hi")),
            "T:SYS:mumaT::hi",
        ),
    ],
)
def test_legacy_templates(text: str, messages: list[Message], prompt: str) -> None:
    assert parse_template(text).render(messages) == prompt


# --- infill ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (
            "{{- if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{- else }}{{ .Prompt }}"
            "{{- end }}",
            "<PRE> def add( <SUF>return x <MID>",
        ),
        ("{{ .System }}{{ .Suffix }}{{ .Messages }}", "<no value>return x<no value>"),
        ("{{ .Suffix }} {{ .Think }} {{ .IsThinkSet }}", "return x true true"),
    ],
)
def test_infill(text: str, prompt: str) -> None:
    assert parse_template(text).render_infill("def add(", "return x", think=True) == prompt


def test_infill_may_show_the_date() -> None:
    template = parse_template("{{ .Suffix }}{{ currentDate }}")
    assert template.render_infill("a", "b", today=date(2026, 3, 1)) == "b2026-03-01"


# --- what each context holds, and the other printed forms -----------------------------------------


def test_the_response_of_a_context_is_empty_not_absent() -> None:
    template = parse_template("{{ range .Messages }}{{ end }}[{{ .Response }}]")
    assert template.render(said(("u", "a"))) == "[]"
    assert parse_template("{{ .Suffix }}[{{ .Response }}]").render_infill("a", "b") == "b[]"


def test_a_legacy_template_sees_neither_messages_nor_a_suffix() -> None:
    text = "{{ .Prompt }}{{ .Suffix }}{{ .Tools }}[{{ .System }}]{{ .Response }}"
    expected = "a<no value><no value>[]"
    assert parse_template(text).render(said(("u", "a")), tools=[RICH]) == expected


def test_every_field_of_a_message() -> None:
    text = in_messages(
        "{{ .Role }}|{{ .Content }}|{{ .Thinking }}|{{ .ToolName }}|{{ .ToolCallID }}|"
        "{{ len .Images }}|{{ len .ToolCalls }}"
    )
    full = calling({}, thinking="hm", tool_name="n", tool_call_id="i", images=[b"1"])
    assert parse_template(text).render([full]) == "assistant||hm|n|i|1|1"
    bare = Message(role="user", content="c")
    assert parse_template(text).render([bare]) == "user|c||||0|0"


def test_calls_print_as_json() -> None:
    printed = parse_template(in_messages("{{ .ToolCalls }}")).render([calling({"city": "Paris"})])
    assert printed == (
        '[{"ID":"call_1","Function":{"Index":0,"Name":"get_weather","Arguments":{"city":"Paris"}}}]'
    )


WITH_ITEMS = Tool(
    type="function",
    items={"z": 1, "a": 2},
    function=ToolFunction(
        name="f",
        parameters=ToolFunctionParameters(
            type="object",
            defs={"q": {"y": 1, "x": 2}},
            items={"type": "string"},
            required=["p"],
            properties={},
        ),
    ),
)


@pytest.mark.parametrize(
    ("body", "printed"),
    [
        (
            "{{ . }}",
            '{"type":"function","items":{"a":2,"z":1},"function":{"name":"f","description":"",'
            '"parameters":{"type":"object","$defs":{"q":{"x":2,"y":1}},"items":{"type":"string"},'
            '"required":["p"],"properties":{}}}}',
        ),
        ("{{ .Items }} {{ .Function.Description }}", "map[a:2 z:1] "),
        (
            "{{ .Function.Parameters.Type }} {{ .Function.Parameters.Defs }} "
            "{{ .Function.Parameters.Items }}",
            "object map[q:map[x:2 y:1]] map[type:string]",
        ),
    ],
)
def test_parts_of_a_tool_that_are_rarely_there(body: str, printed: str) -> None:
    assert with_tool(body, WITH_ITEMS) == printed


@pytest.mark.parametrize(
    ("fields", "printed"),
    [
        ("{{ len .AnyOf }} {{ index .AnyOf 1 }}", '2 {"type":["integer","null"]}'),
        ("{{ .Items }}", "map[a:[2.5 true] z:1]"),
        ("{{ .Description }} {{ .Required }}", "<d> [y]"),
        ("{{ .Enum }}", "[x 1 map[b:2 q:1]]"),
        # As a whole they keep the client's order, one by one they come sorted.
        ("{{ range $n, $p := .Properties }}{{ $n }}{{ $p }}{{ end }}", 'x{}y{"type":"number"}'),
    ],
)
def test_every_field_of_a_property(fields: str, printed: str) -> None:
    body = "{{ with .Function.Parameters.Properties.zeta }}" + fields + "{{ end }}"
    assert with_tool(body) == printed
