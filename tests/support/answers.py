"""Answers of models for every built-in parser: whole ones, and the pieces that break them.

In a text, ``§`` stands for a letter that occurs nowhere else and ``¤`` for a number that no other
piece of the text has (so that no argument overwrites another).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from ollamad.parsing.events import Event, Parser, merged
from ollamad.parsing.families.registry import find_parser
from ollamad.wire import Message, Think, Tool, ToolFunction, ToolFunctionParameters, ToolProperty

WEATHER = Tool(
    type="function",
    function=ToolFunction(
        name="get_weather",
        description="Current weather",
        parameters=ToolFunctionParameters(
            type="object",
            required=["city"],
            properties={
                "city": ToolProperty(type="string", description="City name"),
                "days": ToolProperty(type="integer"),
            },
        ),
    ),
)


def started(
    name: str,
    *,
    tools: Sequence[Tool] = (WEATHER,),
    last: Message | None = None,
    think: Think | None = True,
) -> Parser:
    """A parser that has been told about the conversation."""
    parser = find_parser(name)
    assert parser is not None, name
    parser.start(tools, last, think)
    return parser


def outcome(parser: Parser, pieces: Sequence[str]) -> list[Event]:
    """The merged events of an answer that comes in ``pieces``."""
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merged(events + parser.finish())


def cuts(text: str) -> Iterator[list[str]]:
    """``text`` whole, by characters, and in two at every place."""
    yield [text]
    yield list(text)
    for at in range(1, len(text)):
        yield [text[:at], text[at:]]


def events_of(
    name: str,
    text: str,
    *,
    tools: Sequence[Tool] = (WEATHER,),
    last: Message | None = None,
    think: Think | None = True,
) -> list[Event]:
    """The events of ``text``, having checked that they do not depend on how it is cut."""
    results = []
    for pieces in cuts(text):
        results.append(outcome(started(name, tools=tools, last=last, think=think), pieces))
        assert results[-1] == results[0], pieces
    return results[0]


_SPEECH = ("§", "§ ", " §\n", "\n", " ", "\n\n  ", "§<", "§ < §", "{", "}", "[", "]", '"', "<|")
_JSON_CALLS = (
    '{"name": "get_weather", "arguments": {"city¤": "§", "days¤": 2}}',
    '\n{"name": "f", "arguments": {"a¤": "§\\n§"}}\n',
    '{"name": "§", "arguments": {',
    '{"arguments": {"a¤": "§"}}',
    '"§", "x": [1, {}]}}',
)
_XML_CALLS = (
    "\n<function=get_weather>\n<parameter=city¤>\n§\n</parameter>\n</function>\n",
    "<function=get_weather>",
    "</function>",
    "<parameter=p¤>",
    "</parameter>",
    "<parameter=q¤>§ & <b>§</parameter>",
    '<function name="f¤">',
)
_GLM_CALLS = (
    "get_weather",
    "\n<arg_key>city</arg_key>\n<arg_value>§</arg_value>",
    "<arg_key>k¤</arg_key><arg_value>§</arg_value>",
    "<arg_key>k¤",
    "<arg_value>§",
)
_DEEPSEEK_CALLS = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    'get_weather<｜tool▁sep｜>{"city¤": "§"}<｜tool▁call▁end｜>',
    'function<｜tool▁sep｜>get_weather\n```json\n{"city¤": "§"}\n```<｜tool▁call▁end｜>',
    "<｜tool▁calls▁end｜>",
    '{"a¤": "§"',
)
_PYTHON_CALLS = (
    'get_weather(city¤="§", days=2)',
    "f()",
    "\n",
    "f(a¤='§', b¤=[1, '§'])",
    "f(",
    ", ",
)
_GEMMA_CALLS = (
    'call:get_weather{city¤:<|"|>§<|"|>,days¤:2}',
    "call:get_weather{city:§,days:2}",
    "call:get_weather{city:'§'}",
    "call:f{",
    "thought\n",
    "thought",
    "thou",
    "§:",
)

#: By parser: pieces of answers besides its preserved tokens.
PIECES: dict[str, tuple[str, ...]] = {
    "qwen3": _JSON_CALLS,
    "qwen3-thinking": _JSON_CALLS,
    "qwen3-vl-instruct": _JSON_CALLS,
    "qwen3-vl-thinking": _JSON_CALLS,
    "qwen3-coder": _XML_CALLS,
    "qwen3.5": _XML_CALLS,
    "ornith": _XML_CALLS,
    "nemotron-3-nano": _XML_CALLS,
    "nemotron-3.5-nano": _XML_CALLS,
    "gemma4": _GEMMA_CALLS,
    "gemma4-no-thinking": _GEMMA_CALLS,
    "functiongemma": (
        "call:get_weather{city¤:<escape>§<escape>,days¤:2}",
        "call:f{l¤:[1,§],o¤:{k¤:§}}",
        "<escape>",
        "call:f{",
        "§:",
    ),
    "passthrough": ("<think>", "</think>"),
    "harmony": (
        "<|channel|>analysis<|message|>§<|end|>",
        "<|start|>assistant<|channel|>final<|message|>§",
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json",
        "analysis",
        "commentary",
        " to=functions.get_weather",
        '{"city¤": "§"}',
    ),
    "deepseek3": _DEEPSEEK_CALLS,
    "cogito": _DEEPSEEK_CALLS,
    "olmo3": _PYTHON_CALLS,
    "olmo3-think": ("<think>",),
    "glm-4.7": _GLM_CALLS,
    "glm-ocr": _GLM_CALLS,
    "lfm2": _PYTHON_CALLS,
    "lfm2-thinking": _PYTHON_CALLS,
    "ministral": ("get_weather", '{"city¤": "§"}', '{"a¤": {"b": "}§"}', "§"),
    "laguna": (*_GLM_CALLS, *_JSON_CALLS),
    "poolside-v1": (*_GLM_CALLS, *_JSON_CALLS),
    "cohere": (
        '[{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city¤": "§"}}]',
        '{"tool_name": "f", "parameters": {}}',
        "<|END_OF_TURN_TOKEN|>",
        '[{"§"',
    ),
    "glimmer": (
        " to=self",
        " to=user",
        " to=get_weather",
        "assistant",
        '<atem:function_calls>\n<atem:invoke name="get_weather">\n',
        '<atem:parameter name="city¤">§</atem:parameter>\n',
        "</atem:invoke>\n</atem:function_calls>",
    ),
}

_TOOL_CALL_JSON = (
    "<think>\n§</think>\n\n§ <tool_call>\n"
    '{"name":"x","arguments":{"b":"§","a":2}}\n</tool_call>\n §',
)
_TOOL_CALL_XML = (
    "§\n</think>\n\n§\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\n§\n</parameter>\n"
    "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n§",
)
_CHANNELS = (
    '§<tool_call|> <|tool_call>call:get_weather{city:<|"|>§<|"|>,days:2}<tool_call|>'
    "<|tool_response>§",
)
_GLM = (
    "§</think>§ <tool_call>get_weather<arg_key>city</arg_key><arg_value>§</arg_value>"
    "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call> §",
)
_LAGUNA = (
    "\n§\n</think>\n§ <tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>§</arg_value>\n"
    "</tool_call>\n",
    '§ <think> § </think> § <tool_call>{"name":"get_weather","arguments":{"city":"§"}}</tool_call>'
    " §",
)
_DEEPSEEK = (
    "§</think>\n\n§.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
    '{"city":"§","days":2}<｜tool▁call▁end｜><｜tool▁calls▁end｜> §',
)
_LFM = (
    "§ <|tool_call_start|>[get_weather(city='§', days=2)]<|tool_call_end|> §",
    "<think>\n §\n</think>\n\n§",
)

#: By parser: whole answers, after the specification's worked examples.
ANSWERS: dict[str, tuple[str, ...]] = {
    "qwen3": _TOOL_CALL_JSON,
    "qwen3-thinking": _TOOL_CALL_JSON,
    "qwen3-vl-instruct": _TOOL_CALL_JSON,
    "qwen3-vl-thinking": _TOOL_CALL_JSON,
    "qwen3-coder": _TOOL_CALL_XML,
    "qwen3.5": _TOOL_CALL_XML,
    "ornith": _TOOL_CALL_XML,
    "nemotron-3-nano": _TOOL_CALL_XML,
    "nemotron-3.5-nano": _TOOL_CALL_XML,
    "gemma4": (*_CHANNELS, "<|channel>thought\n§ §\n<channel|>§." + _CHANNELS[0]),
    "gemma4-no-thinking": _CHANNELS,
    "functiongemma": (
        "§ <start_function_call>call:get_weather{city:<escape>§, FR<escape>,days:2,ok:true,"
        "l:[1,<escape>§<escape>],o:{k:<escape>§<escape>}}<end_function_call> §",
    ),
    "passthrough": ("§ <think> §",),
    "harmony": (
        "<|channel|>analysis<|message|>§ §<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"city":"§"}',
        "<|channel|>final<|message|>§<|end|>",
    ),
    "deepseek3": _DEEPSEEK,
    "cogito": (
        "§</think>\n§<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        '```json\n{"city":"§"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    "olmo3": (
        '§ <function_calls>get_weather(city="§", days=2)\nf()</function_calls> §',
        "<function_calls>f(a='§', b=None, c=True, d=[1,'§'], e={\"k\": 1.5})</function_calls>",
    ),
    "olmo3-think": ("\n§ §\n</think>\n\n§",),
    "glm-4.7": _GLM,
    "glm-ocr": ("<think>" + _GLM[0],),
    "lfm2": _LFM,
    "lfm2-thinking": _LFM,
    "ministral": (
        '§ [TOOL_CALLS]get_weather[ARGS]{"city":"§"}[TOOL_CALLS]get_weather[ARGS]{"city":"§"}',
        "§ [THINK]§[/THINK] §",
    ),
    "laguna": _LAGUNA,
    "poolside-v1": _LAGUNA,
    "cohere": (
        "§<|END_THINKING|><|START_TEXT|>§<|END_TEXT|><|END_OF_TURN_TOKEN|>",
        '§<|END_THINKING|><|START_ACTION|>[\n {"tool_call_id": "0", "tool_name": "get_weather", '
        '"parameters": {"city": "§"}}\n]<|END_ACTION|>',
    ),
    "glimmer": (
        " to=self<|message|>§<|eom|><|start|>assistant to=get_weather<|message|>"
        '<atem:function_calls>\n<atem:invoke name="get_weather">\n'
        '<atem:parameter name="city">§</atem:parameter>\n'
        '<atem:parameter name="days">2</atem:parameter>\n'
        "</atem:invoke>\n</atem:function_calls><|eot|>",
        " to=user<|message|>§ §<|eot|>",
    ),
}

_FIRST_LETTER = 0x4E00


def filled(text: str) -> str:
    """``text`` with its letters and numbers put in."""
    letters, numbers = count(_FIRST_LETTER), count(1)
    return "".join(
        chr(next(letters)) if sign == "§" else str(next(numbers)) if sign == "¤" else sign
        for sign in text
    )


def letters_of(text: str) -> list[str]:
    """The letters that ``filled`` has put into ``text``, sorted."""
    return sorted(character for character in text if _FIRST_LETTER <= ord(character) < 0x9FFF)


def pieces_of(name: str) -> tuple[str, ...]:
    """What random answers for one parser are made of: speech, its own tags, parts of them."""
    parser = find_parser(name)
    assert parser is not None, name
    tags = parser.preserved_tokens
    parts = [part for tag in tags for part in (tag[: len(tag) // 2], tag[:-1], tag[1:])]
    own = (*tags, *PIECES.get(name, ()))
    return (*_SPEECH, *parts, *own * 3)
