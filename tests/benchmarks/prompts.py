"""What the daemon itself does for a prompt and for the text of an answer, without any runner."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from benchmarks.figures import Figure
from ollamad.parsing.families.registry import find_parser, parser_names
from ollamad.prompting.renderers.conversation import Conversation
from ollamad.prompting.renderers.registry import find_renderer, renderer_names
from ollamad.prompting.template import parse_template
from ollamad.wire import (
    Message,
    Tool,
    ToolCall,
    ToolCallFunction,
    ToolFunction,
    ToolFunctionParameters,
    ToolProperty,
)

_MESSAGES = 50
_TOOLS = 5
_TARGET_MS = 5.0

#: ChatML with tools, reasoning and prefill, in the manner of the library's templates.
_TEMPLATE = """{{- if or .System .Tools }}<|im_start|>system
{{ .System }}
{{- if .Tools }}
# Tools
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if and .Thinking $last }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}
{{- range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>{{ .Content }}</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"""


def prompts(quick: bool) -> list[Figure]:
    """A conversation of 50 messages with 5 tools: by a Go template, by the slowest renderer."""
    messages, tools = _conversation()
    template = parse_template(_TEMPLATE)
    rounds = 20 if quick else 200
    by_template = _milliseconds(rounds, lambda: template.render(messages, tools=tools, think=True))
    conversation = Conversation(messages, tools, True, True)
    by_renderer = {
        name: _milliseconds(rounds // 5, partial(find_renderer(name).render, conversation))
        for name in sorted(renderer_names())
    }
    slowest = max(by_renderer, key=lambda name: by_renderer[name])
    size = f"{_MESSAGES} messages, {_TOOLS} tools"
    return [
        Figure("prompt by a Go template", by_template, "ms", _TARGET_MS, detail=size),
        Figure(
            f"prompt by the slowest renderer, {slowest}",
            by_renderer[slowest],
            "ms",
            _TARGET_MS,
            detail=size,
        ),
    ]


def parsers(quick: bool) -> list[Figure]:
    """Microseconds a token of an answer without markup, through the slowest named parser."""
    tokens = [f" word{n % 97}" for n in range(400 if quick else 4000)]
    costs = {}
    for name in sorted(parser_names()):

        def read(name: str = name) -> None:
            parser = find_parser(name)
            assert parser is not None
            parser.start([], None, False)
            for token in tokens:
                parser.feed(token)
            parser.finish()

        costs[name] = _milliseconds(5, read) * 1000 / len(tokens)
    slowest = max(costs, key=lambda name: costs[name])
    return [Figure(f"a token through the slowest parser, {slowest}", costs[slowest], "µs")]


def _milliseconds(rounds: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


def _conversation() -> tuple[list[Message], list[Tool]]:
    text = "Several words of ordinary length, as people write them. " * 8
    messages = [Message(role="system", content=text)]
    while len(messages) < _MESSAGES:
        function = ToolCallFunction(index=0, name="tool_1", arguments={"city": "Paris", "days": 2})
        messages += [
            Message(role="user", content=text),
            Message(role="assistant", content="", tool_calls=[ToolCall(id="c", function=function)]),
            Message(role="tool", content="22C", tool_name="tool_1", tool_call_id="c"),
            Message(role="assistant", content=text, thinking=text),
        ]
    messages = [*messages[: _MESSAGES - 1], Message(role="user", content=text)]
    properties = {
        "city": ToolProperty(type="string", description="City name"),
        "days": ToolProperty(type="integer"),
    }
    parameters = ToolFunctionParameters(type="object", required=["city"], properties=properties)
    tools = [
        Tool(
            type="function",
            function=ToolFunction(
                name=f"tool_{n}", description="What it does", parameters=parameters
            ),
        )
        for n in range(_TOOLS)
    ]
    return messages, tools
