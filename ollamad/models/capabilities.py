"""What a stored model can do: its config and all of its files together (prompting.md 6). Pure.

Go templates and named parsers add to this when they are run.
"""

from __future__ import annotations

from collections.abc import Iterable

from ollamad.gguf.capabilities import (
    model_capabilities,
    projector_capabilities,
    template_capabilities,
)
from ollamad.gguf.facts import Facts
from ollamad.store.config import ConfigBlob


def capabilities(
    config: ConfigBlob, facts: Facts | None, projectors: Iterable[Facts]
) -> tuple[str, ...]:
    """Names in the contract's order, without duplicates. ``facts`` None: no readable weights."""
    found: dict[str, None] = dict.fromkeys(config.capabilities)
    if facts is not None:
        found.update(dict.fromkeys(template_capabilities(facts.chat_template)))
        found.update(dict.fromkeys(model_capabilities(facts)))
    for projector in projectors:
        found.update(dict.fromkeys(projector_capabilities(projector)))
    families = {config.model_family, *(config.model_families or ())}
    if families & {"gptoss", "gpt-oss"}:
        found["thinking"] = None
    if "nemotron_h_omni" in families or (facts is not None and facts.arch == "nemotron_h_omni"):
        found.pop("audio", None)
    return tuple(found)
