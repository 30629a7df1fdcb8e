"""prompting.md 6: what a model can do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ollamad.gguf.facts import Facts
from ollamad.models.capabilities import capabilities
from ollamad.prompting.template import parse_template
from ollamad.store.config import EMPTY_CONFIG

JINJA = "{% if tools %}x{% endif %}<think></think>"
ALL_FOUR = ("completion", "vision", "audio", "tools")


def facts(arch: str = "llama", **fields: Any) -> Facts:
    return Facts(arch=arch, **fields)


HEARING = facts("clip", has_audio_encoder=True)
DEAF = facts("clip", has_audio_encoder=True, vision_projector_type="gemma3nv")


@pytest.mark.parametrize(
    ("config", "weights", "projectors", "template", "expected"),
    [
        ({"capabilities": ("image",)}, None, [], None, "image"),
        ({}, facts(), [], "{{ .prompt }}", "completion"),
        ({}, facts(), [], "{{ .prompt }}{{ .tools }}{{ .suffix }}", "completion tools insert"),
        ({"model_family": "gptoss"}, facts("gptoss"), [], None, "completion thinking"),
        ({"model_family": "gpt-oss"}, facts("gptoss"), [], None, "completion thinking"),
        ({}, facts(), [DEAF], None, "completion vision"),
        ({}, facts(vision=True), [], None, "completion vision"),
        ({}, facts(audio=True), [], None, "completion audio"),
        ({}, facts("bert", has_pooling=True), [], None, "embedding"),
        ({}, facts(), [HEARING], None, "completion vision audio"),
        (
            {"parser": "functiongemma"},
            facts(),
            [HEARING],
            None,
            "completion vision audio tools",
        ),
        ({}, facts("nemotron_h_omni", vision=True, audio=True), [], None, "completion vision"),
        (
            {"model_families": ("clip", "nemotron_h_omni")},
            facts(vision=True, audio=True),
            [],
            None,
            "completion vision",
        ),
        ({"capabilities": ("completion", "tools")}, facts(), [], None, "completion tools"),
        (
            {"capabilities": ("completion", "tools"), "parser": "qwen3-coder"},
            None,
            [],
            None,
            "completion tools",
        ),
        ({"parser": "qwen3-thinking"}, facts(), [], None, "completion tools thinking"),
        ({"parser": "olmo3-think"}, facts(), [], None, "completion thinking"),
        ({"parser": "passthrough"}, facts(), [], None, "completion"),
        ({"parser": "nobody"}, facts(), [], None, "completion"),
        ({}, None, [], None, ""),
        ({"model_format": "gguf"}, facts(), [], None, "completion"),
        ({"model_format": "other"}, facts(vision=True), [], None, ""),
    ],
)
def test_cases(
    config: dict[str, Any], weights: Any, projectors: Any, template: str | None, expected: str
) -> None:
    found = capabilities(
        msgspec.structs.replace(EMPTY_CONFIG, **config),
        weights,
        projectors,
        template=None if template is None else parse_template(template),
    )
    assert " ".join(found) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"parser": "nemotron-3-nano", "renderer": "nemotron-3-nano"}, "completion tools thinking"),
        ({"renderer": "nemotron-3-nano"}, "completion tools"),
        ({"model_family": "nemotron_h_omni"}, "completion tools"),
        ({"renderer": "gemma4"}, "completion tools"),
        ({"renderer": "gemma4-small"}, "completion tools"),
        ({"renderer": "gemma4-large"}, "completion tools"),
        ({"renderer": "glimmer"}, "completion vision tools"),
        ({"renderer": "cohere"}, "completion vision audio tools"),
    ],
)
def test_tensors_neither_see_nor_hear(config: dict[str, Any], expected: str) -> None:
    """Where a GGUF of the same kind does."""
    tensors = msgspec.structs.replace(
        EMPTY_CONFIG, model_format="safetensors", capabilities=ALL_FOUR, **config
    )
    assert " ".join(capabilities(tensors, None)) == expected


def test_nothing_is_left_of_a_seeing_and_hearing_gemma() -> None:
    fields = {"capabilities": ("vision", "audio"), "renderer": "gemma4"}
    tensors = msgspec.structs.replace(EMPTY_CONFIG, model_format="safetensors", **fields)
    assert capabilities(tensors, None) == ()
    assert capabilities(msgspec.structs.replace(EMPTY_CONFIG, **fields), None) == (
        "vision",
        "audio",
    )


def test_only_the_template_in_use_counts() -> None:
    weights = facts(chat_template=JINJA)
    go = parse_template("{{ .Tools }}{{ .Suffix }}")
    assert capabilities(EMPTY_CONFIG, weights) == ("completion",)
    assert capabilities(EMPTY_CONFIG, weights, chat_template=True) == (
        "tools",
        "thinking",
        "completion",
    )
    assert capabilities(EMPTY_CONFIG, weights, template=go) == ("completion", "tools", "insert")


def test_thinking_tags_of_a_template() -> None:
    go = "{{ range .Messages }}{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}"
    assert capabilities(EMPTY_CONFIG, facts(), template=parse_template(go)) == (
        "completion",
        "thinking",
    )
    one = go.replace("</t>", "")
    assert capabilities(EMPTY_CONFIG, facts(), template=parse_template(one)) == ("completion",)


def test_no_name_comes_twice() -> None:
    config = msgspec.structs.replace(
        EMPTY_CONFIG,
        capabilities=("tools", "completion", "tools"),
        parser="cogito",
        model_family="gptoss",
    )
    assert capabilities(config, facts(), template=parse_template("{{ .Tools }}")) == (
        "tools",
        "completion",
        "thinking",
    )
