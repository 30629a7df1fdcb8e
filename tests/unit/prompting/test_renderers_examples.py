# ruff: noqa: E501 -- the prompts are as long as they are
"""The worked examples of renderers-and-parsers.md: the conversation of 2.3, byte for byte.

``[XI]`` stands for the text of 1.9, ``⏎`` for a newline at the very end.
"""

from __future__ import annotations

import pytest
from support.conversations import CW, WEATHER, prompt

from ollamad.prompting.renderers.chatml import XML_CALL_INSTRUCTIONS
from ollamad.wire import Think

XI = """\


If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls
</IMPORTANT>"""

QWEN3_CODER = """\
<|im_start|>system
Be brief.

# Tools

You have access to the following functions:

<tools>
<function>
<name>get_weather</name>
<description>Current weather</description>
<parameters>
<parameter>
<name>city</name>
<type>string</type>
<description>City name</description>
</parameter>
<parameter>
<name>days</name>
<type>integer</type>
</parameter>
<required>["city"]</required>
</parameters>
</function>
</tools>[XI]<|im_end|>
<|im_start|>user
Weather in Paris?<|im_end|>
<|im_start|>assistant
Checking.

<tool_call>
<function=get_weather>
<parameter=city>
Paris
</parameter>
<parameter=days>
2
</parameter>
</function>
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
22C
</tool_response><|im_end|>
<|im_start|>assistant⏎"""

QWEN3_VL_THINKING = """\
<|im_start|>system
Be brief.

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name": "get_weather", "description": "Current weather", "parameters": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "description": "City name"}, "days": {"type": "integer"}}}}}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
<|im_start|>user
Weather in Paris?<|im_end|>
<|im_start|>assistant
<think>
Need the tool.
</think>

Checking.
<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
22C
</tool_response><|im_end|>
<|im_start|>assistant
<think>⏎"""

QWEN3_5 = """\
<|im_start|>system
# Tools

You have access to the following functions:

<tools>
{"type": "function", "function": {"name": "get_weather", "description": "Current weather", "parameters": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "description": "City name"}, "days": {"type": "integer"}}}}}
</tools>[XI]

Be brief.<|im_end|>
<|im_start|>user
Weather in Paris?<|im_end|>
<|im_start|>assistant
<think>
Need the tool.
</think>

Checking.

<tool_call>
<function=get_weather>
<parameter=city>
Paris
</parameter>
<parameter=days>
2
</parameter>
</function>
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
22C
</tool_response><|im_end|>
<|im_start|>assistant
<think>⏎"""

GEMMA4 = """\
<bos><|turn>system
<|think|>
Be brief.<|tool>declaration:get_weather{description:<|"|>Current weather<|"|>,parameters:{properties:{city:{description:<|"|>City name<|"|>,type:<|"|>STRING<|"|>},days:{type:<|"|>INTEGER<|"|>}},required:[<|"|>city<|"|>],type:<|"|>OBJECT<|"|>}}<tool|><turn|>
<|turn>user
Weather in Paris?<turn|>
<|turn>model
<|channel>thought
Need the tool.
<channel|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:2}<tool_call|><|tool_response>response:get_weather{value:<|"|>22C<|"|>}<tool_response|>Checking.<turn|>
<|channel>thought⏎"""

FUNCTIONGEMMA = """\
<bos><start_of_turn>developer
Be brief.
You can do function calling with the following functions:<start_function_declaration>declaration:get_weather{description:<escape>Current weather<escape>,parameters:{properties:{city:{description:<escape>City name<escape>,type:<escape>STRING<escape>},days:{description:<escape><escape>,type:<escape>INTEGER<escape>}},required:[<escape>city<escape>],type:<escape>OBJECT<escape>}}<end_function_declaration><end_of_turn>
<start_of_turn>user
Weather in Paris?<end_of_turn>
<start_of_turn>model
Checking.<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:2}<end_function_call><start_function_response>response:get_weather{<escape>22C<escape>}<end_function_response>"""

DEEPSEEK3_1 = """\
<｜begin▁of▁sentence｜>Be brief.

## Tools
You have access to the following tools:

### get_weather
Description: Current weather

Parameters: {"type":"object","required":["city"],"properties":{"city":{"type":"string","description":"City name"},"days":{"type":"integer"}}}

IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
<｜User｜>Weather in Paris?<｜Assistant｜></think>Checking.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city":"Paris","days":2}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁output▁begin｜>22C<｜tool▁output▁end｜>"""

COGITO = """\
<｜begin▁of▁sentence｜>You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in San Francisco.

Be brief.
You have the following functions available:
```json
{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather",
        "parameters": {
            "type": "object",
            "required": [
                "city"
            ],
            "properties": {
                "city": {
                    "type": "string",
                    "description": "City name"
                },
                "days": {
                    "type": "integer"
                }
            }
        }
    }
}
```
<｜User｜>Weather in Paris?<｜Assistant｜>Checking.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
```json
{"city":"Paris","days":2}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>22C<｜tool▁output▁end｜><｜tool▁outputs▁end｜><｜Assistant｜>"""


def test_the_instructions_for_calls_in_xml() -> None:
    assert XML_CALL_INSTRUCTIONS == XI


@pytest.mark.parametrize(
    ("renderer", "think", "expected"),
    [
        ("qwen3-coder", None, QWEN3_CODER),
        ("qwen3-vl-thinking", True, QWEN3_VL_THINKING),
        ("qwen3.5", True, QWEN3_5),
        ("gemma4", True, GEMMA4),
        ("functiongemma", None, FUNCTIONGEMMA),
        ("deepseek3.1", True, DEEPSEEK3_1),
        ("cogito", False, COGITO),
    ],
)
def test_the_worked_example(renderer: str, think: Think | None, expected: str) -> None:
    expected = expected.replace("[XI]", XI).replace("⏎", "\n")
    assert prompt(renderer, CW, tools=[WEATHER], think=think) == expected
