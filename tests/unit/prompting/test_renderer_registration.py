"""What the registry knows about the renderers of 3.9 to 3.16 (renderers-and-parsers 1.3, 1.4)."""

from __future__ import annotations

import pytest

from ollamad.prompting.renderers.registry import find_renderer


@pytest.mark.parametrize(
    ("name", "leading_bos", "places_images"),
    [
        ("olmo3", "", False),
        ("olmo3.1", "", False),
        ("olmo3-think", "", False),
        ("olmo3-32b-think", "", False),
        ("nemotron-3-nano", "", True),
        ("nemotron-3.5-nano", "", True),
        ("glm-4.7", "", False),
        ("glm-ocr", "", True),
        ("lfm2", "<|startoftext|>", True),
        ("lfm2-thinking", "<|startoftext|>", True),
        ("laguna", "〈|EOS|〉", False),
        ("poolside-v1", "〈|EOS|〉", False),
        ("cohere", "<BOS_TOKEN>", False),
        ("glimmer", "<|begin_of_text|>", True),
    ],
)
def test_renderer_facts(name: str, leading_bos: str, places_images: bool) -> None:
    renderer = find_renderer(name)
    assert renderer.name == name
    assert (renderer.leading_bos, renderer.places_images) == (leading_bos, places_images)
