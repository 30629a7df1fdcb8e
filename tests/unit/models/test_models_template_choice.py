"""prompting.md 1.1 to 1.4, 6.2 and C5: who makes the prompts, and what the model can do then."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ollamad.gguf.facts import Facts
from ollamad.models.capabilities import capabilities
from ollamad.models.template_choice import Choice, choose
from ollamad.prompting.template import parse_template
from ollamad.store.config import EMPTY_CONFIG, ConfigBlob

CUSTOM = "CUSTOM {{ .Prompt }}"
TOOLS = "{% if tools %}{{ tools }}{% endif %}"
TRIP = TOOLS + "{{ message.tool_calls }}{% if message.role == 'tool' %}<tool_response>{% endif %}"
THINKS = "{{ content.split('</think>') }}"
PLAIN = "{{ messages[0]['content'] }}"

GO_THINKING = (
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}"
)
GO_TOOLS = "{{ .Tools }}{{ range .Messages }}{{ .ToolCalls }}{{ end }}"
GO_TRIP = GO_TOOLS + '{{ range .Messages }}{{ if eq .Role "tool" }}{{ .Content }}{{ end }}{{ end }}'
HARMONY = "{{ range .Messages }}<|start|>{{ .Role }}{{ .Content }}<|end|>{{ end }}"


def config(**fields: Any) -> ConfigBlob:
    return msgspec.structs.replace(EMPTY_CONFIG, **fields)


def chosen(
    chat: str | None = "",
    go: str | None = None,
    *,
    switch: bool | None = None,
    arch: str = "llama",
    projectors: tuple[Facts, ...] = (),
    **fields: Any,
) -> tuple[Choice, str]:
    """The choice and the capabilities; ``chat`` None: no readable weights."""
    weights = None if chat is None else Facts(arch=arch, chat_template=chat)
    template = parse_template("{{ .Prompt }}" if go is None else go)
    choice = choose(
        config(**fields), weights, projectors, template, has_layer=go is not None, switch=switch
    )
    able = capabilities(
        config(**fields),
        weights,
        projectors,
        template=template if choice.uses_go_template else None,
        chat_template=choice.uses_chat_template,
    )
    return choice, " ".join(able)


@pytest.mark.parametrize(
    ("chat", "go", "switch", "source", "able"),
    [
        (TOOLS, CUSTOM, None, "gguf_chat_template", "tools completion"),
        (TOOLS, CUSTOM, True, "go_template", "completion"),
        (TOOLS, CUSTOM, False, "gguf_chat_template", "tools completion"),
        (TOOLS + THINKS, GO_THINKING, None, "gguf_chat_template", "tools thinking completion"),
        (TRIP, GO_TOOLS, None, "gguf_chat_template", "tools completion"),
        (TRIP, GO_TRIP, None, "go_template", "completion tools"),
        (TOOLS, GO_TOOLS, None, "go_template", "completion tools"),
        (TOOLS + "<think></think>", GO_TRIP, None, "go_template", "completion tools"),
        (
            TRIP + "<think></think>",
            GO_TRIP,
            None,
            "gguf_chat_template",
            "tools thinking completion",
        ),
        (TOOLS, GO_THINKING, None, "go_template", "completion thinking"),
        (PLAIN, CUSTOM, None, "go_template", "completion"),
        (PLAIN, GO_TOOLS, None, "go_template", "completion tools"),
        ("", CUSTOM, None, "go_template", "completion"),
        ("", CUSTOM, True, "go_template", "completion"),
        ("", GO_TOOLS, False, "none", "completion"),
        ("", "", None, "go_template", "completion"),
        (TOOLS, None, None, "gguf_chat_template", "tools completion"),
        (TOOLS, None, True, "gguf_chat_template", "tools completion"),
        ("", None, None, "none", "completion"),
        ("", None, True, "none", "completion"),
        (None, CUSTOM, None, "go_template", ""),
        (None, None, None, "none", ""),
    ],
)
def test_templates(
    chat: str | None, go: str | None, switch: bool | None, source: str, able: str
) -> None:
    choice, found = chosen(chat, go, switch=switch)
    assert (choice.source, found) == (source, able)
    assert choice.is_rendered is choice.uses_go_template is (source == "go_template")
    assert choice.uses_chat_template is (source == "gguf_chat_template")


@pytest.mark.parametrize("switch", [None, True, False])
@pytest.mark.parametrize("chat", ["", TRIP])
@pytest.mark.parametrize(
    ("fields", "go", "source"),
    [
        ({"renderer": "qwen3-coder", "parser": "qwen3-coder"}, None, "renderer_parser"),
        ({"renderer": "nobody"}, CUSTOM, "renderer"),
        ({"parser": "nobody"}, CUSTOM, "parser"),
        ({"parser": "qwen3"}, None, "parser"),
        ({"model_family": "gptoss"}, HARMONY, "harmony"),
        ({"model_family": "gpt-oss"}, HARMONY, "harmony"),
        ({"model_family": "gptoss", "parser": "harmony"}, HARMONY, "parser"),
    ],
)
def test_named_parts_are_always_rendered(
    fields: dict[str, Any], go: str | None, source: str, chat: str, switch: bool | None
) -> None:
    choice, _ = chosen(chat, go, switch=switch, **fields)
    assert choice.source == source
    assert choice.is_rendered
    assert not choice.uses_chat_template
    assert choice.uses_go_template is (go is not None and switch is not False)
    assert choice.uses_harmony is (go == HARMONY)


@pytest.mark.parametrize(
    ("family", "go"),
    [("llama", HARMONY), ("gptoss", CUSTOM), ("gptoss", "<|start|>"), ("gptoss", None)],
)
def test_harmony_takes_family_and_template(family: str, go: str | None) -> None:
    assert not chosen("", go, model_family=family)[0].uses_harmony


def test_tensors_are_always_rendered() -> None:
    choice, found = chosen(TOOLS, model_format="safetensors")
    assert choice.is_rendered
    assert not choice.uses_chat_template
    assert choice.source == "none"
    assert found == ""


def test_the_number_of_capabilities_counts_all_of_them() -> None:
    """1.3 compares the whole sets: what both have in common decides nothing."""
    sees = (Facts(arch="clip"),)
    choice, found = chosen(TOOLS, CUSTOM, projectors=sees)
    assert choice.uses_chat_template
    assert found == "tools completion vision"
    # Thinking by the family is no merit of the template.
    choice, _ = chosen("<think></think>", CUSTOM, model_family="gptoss")
    assert choice.source == "go_template"


RICH = "{% if tools %}{{ tools }}{% endif %}<think></think>"


@pytest.mark.parametrize(
    ("chat", "go", "switch", "fields", "able"),
    [
        (RICH, None, None, {}, "tools thinking completion"),
        (RICH, "{{ .prompt }}", True, {}, "completion"),
        (RICH, "{{ .prompt }}", None, {}, "tools thinking completion"),
        ("", HARMONY, None, {"model_family": "gptoss"}, "completion thinking"),
    ],
)
def test_what_a_model_with_two_templates_can_do(
    chat: str, go: str | None, switch: bool | None, fields: dict[str, Any], able: str
) -> None:
    """The rows of 6.2 that depend on the choice; the order is that of the list."""
    assert chosen(chat, go, switch=switch, **fields)[1] == able
