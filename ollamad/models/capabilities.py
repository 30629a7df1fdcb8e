"""What a model can do, from its config, its weights' metadata and its projector.

Source: prompting.md 1.3 and 6. Pure. Go templates and named parsers add to this when they are run.
"""

from __future__ import annotations

from collections.abc import Iterable

from ollamad.gguf.facts import Facts
from ollamad.store.config import ConfigBlob


def capabilities(
    config: ConfigBlob, facts: Facts | None, projectors: Iterable[Facts]
) -> tuple[str, ...]:
    """Names in the contract's order, without duplicates. ``facts`` None: no readable weights."""
    found: dict[str, None] = dict.fromkeys(config.capabilities)
    if facts is not None:
        found.update(dict.fromkeys(template_capabilities(facts.chat_template)))
        found["embedding" if facts.has_pooling else "completion"] = None
        if facts.vision:
            found["vision"] = None
        if facts.audio:
            found["audio"] = None
    for projector in projectors:
        found["vision"] = None
        if projector.has_audio_encoder and projector.vision_projector_type != "gemma3nv":
            found["audio"] = None
    families = {config.model_family, *(config.model_families or ())}
    if families & {"gptoss", "gpt-oss"}:
        found["thinking"] = None
    if "nemotron_h_omni" in families or (facts is not None and facts.arch == "nemotron_h_omni"):
        found.pop("audio", None)
    return tuple(found)


def template_capabilities(template: str) -> list[str]:
    """``tools`` and ``thinking`` as a chat template's text shows them (1.3)."""
    found = []
    if "tools" in template or "tool_call" in template:
        found.append("tools")
    if ("<think>" in template and "</think>" in template) or (
        ("content.split('</think>')" in template or 'content.split("</think>")' in template)
        and "reasoning_content" not in template
        and "<SPECIAL_12>" not in template
    ):
        found.append("thinking")
    return found
