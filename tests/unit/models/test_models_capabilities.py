"""prompting.md 6.2: what a model can do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ollamad.gguf.facts import Facts
from ollamad.models.capabilities import capabilities
from ollamad.store.config import EMPTY_CONFIG

JINJA = "{% if tools %}x{% endif %}<think></think>"


def facts(arch: str = "llama", **fields: Any) -> Facts:
    return Facts(arch=arch, **fields)


@pytest.mark.parametrize(
    ("config", "weights", "projectors", "expected"),
    [
        ({"capabilities": ("image",)}, None, [], "image"),
        ({}, facts(), [], "completion"),
        ({}, facts(chat_template=JINJA), [], "tools thinking completion"),
        ({"model_family": "gptoss"}, facts("gptoss"), [], "completion thinking"),
        (
            {},
            facts(),
            [facts("clip", has_audio_encoder=True, vision_projector_type="gemma3nv")],
            "completion vision",
        ),
        ({}, facts(vision=True), [], "completion vision"),
        ({}, facts("bert", has_pooling=True), [], "embedding"),
        ({}, facts(), [facts("clip", has_audio_encoder=True)], "completion vision audio"),
        ({}, facts("nemotron_h_omni", vision=True, audio=True), [], "completion vision"),
        ({"capabilities": ("completion", "tools")}, facts(), [], "completion tools"),
        ({}, None, [], ""),
    ],
)
def test_cases(config: dict[str, Any], weights: Any, projectors: Any, expected: str) -> None:
    found = capabilities(msgspec.structs.replace(EMPTY_CONFIG, **config), weights, projectors)
    assert " ".join(found) == expected
