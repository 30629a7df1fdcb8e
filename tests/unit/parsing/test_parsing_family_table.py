"""What each parser is capable of and which tokens it wants: renderers-and-parsers.md 2.1, 2.2."""

import pytest

from ollamad.parsing.families.registry import find_parser

_DEEPSEEK = (
    "</think> <｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> <｜tool▁call▁begin｜> "
    "<｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>"
)
_GLM = "<think> </think> <tool_call> </tool_call> <arg_key> </arg_key> <arg_value> </arg_value>"
_LFM = "<think> </think> <|tool_call_start|> <|tool_call_end|>"
_LAGUNA = _GLM + " <user> </user>"


@pytest.mark.parametrize(
    ("name", "tools", "thinking", "tokens"),
    [
        ("harmony", True, True, "<|start|> <|end|> <|message|> <|channel|> <|constrain|>"),
        ("deepseek3", True, True, _DEEPSEEK),
        ("cogito", True, True, _DEEPSEEK + " <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜>"),
        ("olmo3", True, False, "<function_calls> </function_calls>"),
        ("olmo3-think", False, True, "</think>"),
        ("glm-4.7", True, True, _GLM),
        ("glm-ocr", True, False, _GLM),
        ("lfm2", True, False, _LFM),
        ("lfm2-thinking", True, True, _LFM),
        ("ministral", True, False, "[TOOL_CALLS] [THINK] [/THINK] [ARGS]"),
        ("laguna", True, True, _LAGUNA),
        ("poolside-v1", True, True, _LAGUNA),
        (
            "cohere",
            True,
            True,
            "<|START_THINKING|> <|END_THINKING|> <|START_TEXT|> <|END_TEXT|> <|START_ACTION|> "
            "<|END_ACTION|> <|START_RESPONSE|> <|END_RESPONSE|>",
        ),
        ("glimmer", True, True, "<|start|> <|message|> <|eom|> <|eot|>"),
    ],
)
def test_table(name: str, tools: bool, thinking: bool, tokens: str) -> None:
    parser = find_parser(name)
    assert parser is not None
    assert (parser.has_tools, parser.has_thinking) == (tools, thinking)
    assert sorted(parser.preserved_tokens) == sorted(tokens.split())
