"""Reasoning and tools from end to end, for the formats of many model families.

What the model says is played back by the stand-in runner, token by token; prompt, parser and wire
are the daemon's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from support.fake import FakeDaemon

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {
                "city": {"type": "string", "description": "City name"},
                "days": {"type": "integer"},
            },
        },
    },
}
QUESTION = {"role": "user", "content": "Weather in Paris?"}
ARGUMENTS = {"city": "Paris", "days": 2}

XML_CALL = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
    "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
)
JSON_CALL = '{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}'

#: Go templates in the manner of the library's, only as long as they have to be.
QWEN_TEMPLATE = """{{- if .Tools }}<|im_start|>system
{{ range .Tools }}{{ . }}
{{ end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
<|im_start|>{{ .Role }}
{{ if and .Thinking $last }}<think>
{{ .Thinking }}
</think>
{{ end }}{{ .Content }}
{{- if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>{{ end }}<|im_end|>
{{ if and $last (ne .Role "assistant") }}<|im_start|>assistant
{{ end }}
{{- end }}"""
PLAIN_TEMPLATE = (
    "{{ range .Messages }}{{ .Role }}: {{ .Content }}"
    "{{ range .ToolCalls }}[TOOL_CALLS]{{ .Function.Name }}[ARGS]{{ .Function.Arguments }}{{ end }}"
    "\n{{ end }}{{ .Tools }}"
)
MISTRAL_TEMPLATE = (
    "{{ range .Messages }}[INST] {{ .Content }}[/INST]"
    "{{ if .ToolCalls }}[TOOL_CALLS] [{{ range .ToolCalls }}"
    '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}]{{ end }}'
    "{{ end }}{{ .Tools }}"
)
LLAMA_TEMPLATE = (
    "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>{{ .Content }}"
    "{{ if .ToolCalls }}{{ range .ToolCalls }}"
    '{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}{{ end }}{{ end }}'
    "<|eot_id|>{{ end }}{{ .Tools }}"
)
HARMONY_TEMPLATE = (
    "{{ range .Messages }}<|start|>{{ .Role }}<|message|>{{ .Content }}<|end|>"
    "{{ range .ToolCalls }}<|start|>assistant<|channel|>commentary to=functions."
    "{{ .Function.Name }} <|constrain|>json<|message|>{{ .Function.Arguments }}<|call|>{{ end }}"
    "{{ end }}<|start|>assistant{{ .Tools }}"
)


class Family(NamedTuple):
    """``says``: an answer with reasoning (if any), ``Checking.`` (if any) and one call."""

    says: str
    thinking: str = "Need the tool."
    content: str = "Checking."
    renderer: str = ""
    parser: str = ""
    template: str = ""
    family: str = ""


FAMILIES = {
    "qwen3 (template)": Family(
        f"<think>\nNeed the tool.</think>\n\nChecking.<tool_call>\n{JSON_CALL}\n</tool_call>",
        template=QWEN_TEMPLATE,
    ),
    "mistral (template)": Family(
        f"Checking.[TOOL_CALLS] [{JSON_CALL}]", thinking="", template=MISTRAL_TEMPLATE
    ),
    "llama 3 (template)": Family(
        '{"name": "get_weather", "parameters": {"city": "Paris", "days": 2}}',
        thinking="",
        content="",
        template=LLAMA_TEMPLATE,
    ),
    "gpt-oss": Family(
        "<|channel|>analysis<|message|>Need the tool.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>Checking.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json"
        '<|message|>{"city":"Paris","days":2}',
        template=HARMONY_TEMPLATE,
        family="gptoss",
    ),
    "qwen3-coder": Family(
        f"Checking.\n\n{XML_CALL}", thinking="", renderer="qwen3-coder", parser="qwen3-coder"
    ),
    "qwen3-vl-thinking": Family(
        f"Need the tool.</think>\n\nChecking.\n<tool_call>\n{JSON_CALL}\n</tool_call>",
        renderer="qwen3-vl-thinking",
        parser="qwen3-vl-thinking",
    ),
    "qwen3.5": Family(
        f"Need the tool.\n</think>\n\nChecking.\n\n{XML_CALL}", renderer="qwen3.5", parser="qwen3.5"
    ),
    "gemma4": Family(
        "<|channel>thought\nNeed the tool.\n<channel|>Checking."
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:2}<tool_call|><|tool_response>',
        renderer="gemma4",
        parser="gemma4",
    ),
    "functiongemma": Family(
        "Checking.<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:2}"
        "<end_function_call>",
        thinking="",
        renderer="functiongemma",
        parser="functiongemma",
    ),
    "deepseek": Family(
        "Need the tool.</think>\n\nChecking.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather"
        '<｜tool▁sep｜>{"city":"Paris","days":2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        renderer="deepseek3.1",
        parser="deepseek3",
    ),
    "olmo3": Family(
        'Checking.<function_calls>get_weather(city="Paris", days=2)</function_calls>',
        thinking="",
        renderer="olmo3",
        parser="olmo3",
    ),
    "nemotron": Family(
        f"Need the tool.\n</think>\n\nChecking.\n{XML_CALL}\n",
        renderer="nemotron-3-nano",
        parser="nemotron-3-nano",
    ),
    "glm-4.7": Family(
        "Need the tool.</think>Checking.<tool_call>get_weather<arg_key>city</arg_key>"
        "<arg_value>Paris</arg_value><arg_key>days</arg_key><arg_value>2</arg_value></tool_call>",
        renderer="glm-4.7",
        parser="glm-4.7",
    ),
    "lfm2-thinking": Family(
        "<think>\nNeed the tool.</think>\n\nChecking."
        "<|tool_call_start|>[get_weather(city='Paris', days=2)]<|tool_call_end|>",
        renderer="lfm2-thinking",
        parser="lfm2-thinking",
    ),
    "ministral": Family(
        '[THINK]Need the tool.[/THINK]Checking.[TOOL_CALLS]get_weather[ARGS]{"city":"Paris",'
        '"days":2}',
        parser="ministral",
        template=PLAIN_TEMPLATE,
    ),
    "laguna": Family(
        "\nNeed the tool.\n</think>\nChecking. <tool_call>get_weather\n<arg_key>city</arg_key>\n"
        "<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n"
        "</tool_call>\n",
        renderer="laguna",
        parser="laguna",
    ),
    "cohere": Family(
        'Need the tool.<|END_THINKING|><|START_ACTION|>[\n {"tool_call_id": "0", "tool_name": '
        '"get_weather", "parameters": {"city": "Paris", "days": 2}}\n]<|END_ACTION|>',
        content="",
        renderer="cohere",
        parser="cohere",
    ),
    "glimmer": Family(
        " to=self<|message|>Need the tool.<|eom|><|start|>assistant to=get_weather<|message|>"
        '<atem:function_calls>\n<atem:invoke name="get_weather">\n<atem:parameter name="city">'
        'Paris</atem:parameter>\n<atem:parameter name="days">2</atem:parameter>\n</atem:invoke>\n'
        "</atem:function_calls><|eot|>",
        content="",
        renderer="glimmer",
        parser="glimmer",
    ),
}


@pytest.fixture(params=FAMILIES, scope="module")
def model(request: pytest.FixtureRequest, fake_daemon: FakeDaemon) -> tuple[str, Family]:
    family = FAMILIES[request.param]
    name = "family-" + "".join(c for c in request.param if c.isalnum())
    base = f"{name}-base"
    fake_daemon.add(base, **({"arch": family.family} if family.family else {}))
    asked = {"model": name, "from": base, "stream": False}
    for key in ("renderer", "parser", "template"):
        if value := getattr(family, key):
            asked[key] = value
    fake_daemon.post("/api/create", asked)
    return name, family


def _chat(model: tuple[str, Family], **fields: Any) -> dict[str, Any]:
    name, family = model
    think = {"think": True} if family.thinking and family.parser != "ministral" else {}
    return {"model": name, "messages": [QUESTION], "tools": [WEATHER], **think, **fields}


#: Those whose example has text before its call.
TALKING = [name for name, family in FAMILIES.items() if "Checking." in family.says]


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_an_answer_with_reasoning_text_and_a_call(
    fake: FakeDaemon, model: tuple[str, Family], cut: int
) -> None:
    _, family = model
    fake.will(says=family.says, cut=cut)
    events = list(fake.stream("/api/chat", _chat(model)))
    messages = [event["message"] for event in events]
    assert "".join(m.get("thinking", "") for m in messages).strip() == family.thinking
    assert "".join(m["content"] for m in messages).strip() == family.content
    (call,) = [call for m in messages for call in m.get("tool_calls", [])]
    assert call["function"] == {"index": 0, "name": "get_weather", "arguments": ARGUMENTS}
    assert call["id"].startswith("call_")
    assert len(call["id"]) == 13
    assert events[-1]["done"]
    assert events[-1]["done_reason"] == "stop"
    whole = fake.post("/api/chat", _chat(model, stream=False))
    assert whole["message"].get("thinking", "").strip() == family.thinking
    assert whole["message"]["content"].strip() == family.content
    assert [c["function"] for c in whole["message"]["tool_calls"]] == [call["function"]]


def _prompt(fake: FakeDaemon, model: tuple[str, Family], messages: list[Any]) -> str:
    asked = _chat(model, messages=messages, _debug_render_only=True, stream=False)
    rendered = fake.post("/api/chat", asked)["_debug_info"]["rendered_template"]
    assert isinstance(rendered, str)
    return rendered


def test_the_call_and_its_result_go_back_into_the_prompt(
    fake: FakeDaemon, model: tuple[str, Family]
) -> None:
    call = {"id": "call_1", "function": {"name": "get_weather", "arguments": ARGUMENTS}}
    result = {"role": "tool", "content": "22C", "tool_name": "get_weather"}
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    question = _prompt(fake, model, [QUESTION])
    rendered = _prompt(fake, model, [QUESTION, called, {**result, "tool_call_id": "call_1"}])
    assert rendered.count("22C") == question.count("22C") + 1
    # The tools are listed in both, the call only in one.
    assert rendered.count("get_weather") > question.count("get_weather")
    assert rendered.count("Paris") > question.count("Paris")


@pytest.mark.parametrize("model", TALKING, indirect=True)
def test_a_format_waits_for_the_answer(fake: FakeDaemon, model: tuple[str, Family]) -> None:
    """The reasoning is free, what follows obeys the schema; the runner is asked twice."""
    _, family = model
    head = family.says[: family.says.index("Checking.")]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    fake.will(says=[f"{head}Free text", '{"a": 1}'])
    whole = fake.post("/api/chat", _chat(model, format=schema, stream=False))
    assert whole["message"]["content"] == '{"a": 1}'
    assert whole["message"].get("thinking", "").strip() == family.thinking
    first, second = fake.asked("/completion")[-2:]
    assert "json_schema" not in first
    assert {**second["json_schema"], **schema} == second["json_schema"]
    assert second["prompt"] == first["prompt"] + head
