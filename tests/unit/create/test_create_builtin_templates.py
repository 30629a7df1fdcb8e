"""The built-in Go templates against the tables of prompting.md 4.2 and modelfile-and-create 5.2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollamad.create.builtin_templates import builtin_template, stop_lists
from ollamad.prompting.template import Template, parse_template
from ollamad.wire import Message, Tool

NAMES = tuple(stop_lists())
ROLES = {"S": "system", "u": "user", "a": "assistant", "t": "tool"}


def template(name: str) -> Template:
    return parse_template(builtin_template(name).text)


def _cases() -> Iterator[tuple[str, str, str]]:
    """Template, conversation (``S``: system text S, ``u1``: user text u1, …), prompt."""
    text = Path(__file__).with_name("template_cases.tsv").read_text("utf-8")
    for line in text.splitlines():
        name, conversation, prompt = line.split("\t")
        yield name, conversation, prompt.replace("⏎", "\n")


@pytest.mark.parametrize(("name", "conversation", "prompt"), list(_cases()))
def test_prompts(name: str, conversation: str, prompt: str) -> None:
    messages = [Message(role=ROLES[text[0]], content=text) for text in conversation.split()]
    assert template(name).render(messages) == prompt


def test_there_are_twenty_with_stops() -> None:
    assert len(NAMES) == 20
    assert {name for name, _, _ in _cases()} == set(NAMES)
    assert all(stop_lists().values())
    with pytest.raises(KeyError):
        builtin_template("gpt5")


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("alfred", "<start_system> <end_message> <start_user> <start_assistant>"),
        ("chatml", "<|im_start|> <|im_end|>"),
        ("gemma3-instruct", "<end_of_turn>"),
        ("mistral-instruct", "<|im_start|> <|im_end|>"),
        ("phi-3", "<|end|> <|system|> <|user|> <|assistant|>"),
        ("zephyr", "<|system|> </s> <|user|> <|assistant|>"),
    ],
)
def test_stops(name: str, stops: str) -> None:
    assert builtin_template(name).stops == tuple(stops.split())


@pytest.mark.parametrize("name", NAMES)
def test_what_the_templates_say_of_a_model(name: str) -> None:
    """Capabilities are read off a template: none may claim what its model cannot do."""
    text, found = builtin_template(name).text, template(name)
    assert {"messages", "role", "content"} <= found.variables
    assert not {"response", "prompt", "suffix", "thinking"} & found.variables
    assert ("tools" in found.variables) is (name == "command-r")
    assert found.has_tool_round_trip is (name == "command-r")
    assert found.thinking_tags == ("", "")
    assert "\r" not in text
    assert "think" not in text


@pytest.mark.parametrize("name", NAMES)
def test_unknown_roles_are_no_turns_of_their_own(name: str) -> None:
    def of(*roles: str) -> str:
        return template(name).render([Message(role=role, content="<c>") for role in roles])

    has_every_role = name in ("chatml", "llama3-instruct", "phi-3", "zephyr")
    assert ("<c>" in of("critic")) is has_every_role
    assert (of("user", "critic") == of("user")) is not has_every_role


# --- command-r with tools -------------------------------------------------------------------------

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather",
        "parameters": {
            "type": "object",
            "properties": {
                "days": {"type": "integer", "description": "How many"},
                "city": {"type": "string", "description": "City name"},
            },
        },
    },
}
PING: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "ping",
        "description": "Nothing",
        "parameters": {"type": "object", "properties": {}},
    },
}
STUBS = """## Available Tools
Here is a list of tools that you have available to you:

```python
def get_weather(city: string, days: integer, ) -> List[Dict]:
    '''Current weather

    Args:
        city (string): City name
        days (integer): How many
    '''
    pass
```

```python
def ping() -> List[Dict]:
    '''Nothing
    '''
    pass
```<|END_OF_TURN_TOKEN|>"""


def with_tools(*messages: dict[str, Any]) -> str:
    return template("command-r").render(
        msgspec.convert(list(messages), list[Message]),
        tools=msgspec.convert([WEATHER, PING], list[Tool]),
    )


def test_tools_are_python_stubs_in_the_system_turn() -> None:
    bare = with_tools({"role": "user", "content": "u1"})
    head, stubs, conversation = bare.partition(STUBS)
    assert stubs
    assert head.startswith("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># Safety Preamble\n")
    assert "\n\n# System Preamble\n## Basic Rules\n" in head
    assert "# User Preamble" not in head
    assert conversation.startswith(
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>u1"
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Write 'Action:' followed by a json-formatted list"
    )
    assert conversation.endswith(
        "\n]```<|END_OF_TURN_TOKEN|><|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>\n"
    )
    told = with_tools({"role": "system", "content": "S"}, {"role": "user", "content": "u1"})
    assert told == f"{head}# User Preamble\nS\n\n{STUBS}{conversation}"


def test_calls_and_their_results() -> None:
    call = {"function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}}
    calls = {"role": "assistant", "content": "", "tool_calls": [call, call]}
    answer = {"role": "tool", "content": "22C", "tool_name": "get_weather"}
    action = """
    {
        "tool_name": "get_weather",
        "parameters": {"city":"Paris"}
    }"""
    prompt = with_tools({"role": "user", "content": "u1"}, calls, answer)
    assert (
        f"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>\nAction: ```json\n[{action}{action}\n]```"
        "<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>\nconsole_output: 22C\n</results>"
        "<|END_OF_TURN_TOKEN|>"
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>\n"
    ) in prompt
    spoken = with_tools({"role": "user", "content": "u1"}, {**calls, "content": "a1"})
    assert "Action: ```" not in spoken
    assert "<|CHATBOT_TOKEN|>a1<|END_OF_TURN_TOKEN|>" in spoken


def test_the_tag_of_calls() -> None:
    assert template("command-r").tool_tag == "Action: ```json\n["


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("alpaca", ["### Instruction:", "### Response"]),
        ("chatqa", ["System:", "User:", "Assistant:", "<|begin_of_text|>"]),
        ("codellama-70b-instruct", ["Source:", "Destination:", "<step>"]),
        ("command-r", ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"]),
        ("falcon-instruct", ["User:", "Assistant:"]),
        ("gemma-instruct", ["<start_of_turn>", "<end_of_turn>"]),
        ("granite-instruct", ["System:", "Question:", "Answer:"]),
        ("llama2-chat", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"]),
        ("llama3-instruct", ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
        ("magicoder", ["@@ Instruction", "@@ Response"]),
        ("openchat", ["<|end_of_turn|>"]),
        ("solar-instruct", ["### System:", "### User:", "### Assistant"]),
        ("starcoder2-instruct", ["### Instruction", "### Response", "<|endoftext|>"]),
        ("vicuna", ["USER:", "ASSISTANT:"]),
    ],
)
def test_stops_of_the_others(name: str, stops: list[str]) -> None:
    assert builtin_template(name).stops == tuple(stops)
