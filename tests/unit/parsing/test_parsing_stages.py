"""What the parsers that go from stage to stage share."""

import pytest
from support.answers import started

from ollamad.parsing import withholding
from ollamad.parsing.families import stages
from ollamad.parsing.families.stages import StagedParser

#: How a call begins that goes on for long, by parser.
OPENERS = {
    "qwen3": "<tool_call>",
    "qwen3.5": "</think><tool_call>",
    "nemotron-3-nano": "</think><tool_call>",
    "gemma4": "<|tool_call>",
    "functiongemma": "<start_function_call>",
    "deepseek3": "</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    "olmo3": "<function_calls>",
    "glm-4.7": "</think><tool_call>",
    "lfm2": "<|tool_call_start|>",
    "laguna": "</think><tool_call>",
    "cohere": "<|END_THINKING|><|START_ACTION|>",
}


@pytest.mark.parametrize("name", OPENERS)
def test_a_long_call_is_not_searched_from_its_start_for_every_piece(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = 0

    def first_tag(text: str, tags: tuple[str, ...]) -> withholding.Split | None:
        nonlocal searched
        searched += len(text)
        return withholding.first_tag(text, tags)

    parser = started(name)
    assert not any(parser.feed(OPENERS[name]))
    monkeypatch.setattr(stages, "first_tag", first_tag)
    pieces = 2000
    for _ in range(pieces):
        assert parser.feed("word ") == []
    # Five characters a piece, and as many before as a tag may have.
    assert 0 < searched < pieces * 50


def test_a_family_without_its_content_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="_content"):
        StagedParser()  # type: ignore[abstract]
