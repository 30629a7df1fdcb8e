"""What a stored model can do: config, files, template and parser together (prompting.md 6). Pure.

Whether a request is refused for what a model lacks is decided in ``inference.services``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ollamad.gguf.capabilities import (
    model_capabilities,
    projector_capabilities,
    template_capabilities,
)
from ollamad.gguf.facts import Facts
from ollamad.parsing.families.registry import find_parser
from ollamad.prompting.template import Template
from ollamad.store.config import ConfigBlob

#: ``model_family`` of gpt-oss, in the spellings that are stored.
GPT_OSS = frozenset({"gptoss", "gpt-oss"})

_GEMMA4_RENDERERS = frozenset({"gemma4", "gemma4-small", "gemma4-large"})


def capabilities(
    config: ConfigBlob,
    facts: Facts | None,
    projectors: Iterable[Facts] = (),
    *,
    template: Template | None = None,
    chat_template: bool = False,
) -> tuple[str, ...]:
    """Names in the contract's order, without duplicates. ``facts`` None: no readable weights.

    ``template``: the Go template if it is in use; ``chat_template``: that of the GGUF is.
    """
    found = dict.fromkeys(config.capabilities)
    if facts is not None and is_gguf(config):
        if chat_template:
            found.update(dict.fromkeys(template_capabilities(facts.chat_template)))
        found.update(dict.fromkeys(model_capabilities(facts)))
    for projector in projectors:
        found.update(dict.fromkeys(projector_capabilities(projector)))
    if template is not None:
        found.update(dict.fromkeys(_go_template_capabilities(template)))
    parser = find_parser(config.parser)
    if parser is not None:
        found.update({"tools": None} if parser.has_tools else {})
        found.update({"thinking": None} if parser.has_thinking else {})
    if config.model_family in GPT_OSS:
        found["thinking"] = None
    return tuple(name for name in found if name not in _unusable(config, facts))


def is_gguf(config: ConfigBlob) -> bool:
    """Whether the weights of a model with this config are a GGUF."""
    return config.model_format in ("", "gguf")


def is_mlx(config: ConfigBlob) -> bool:
    """Whether they are tensors that the reference runs with MLX."""
    return config.model_format == "safetensors"


def _go_template_capabilities(template: Template) -> list[str]:
    found = []
    if "tools" in template.variables:
        found.append("tools")
    if "suffix" in template.variables:
        found.append("insert")
    if all(template.thinking_tags):
        found.append("thinking")
    return found


def _unusable(config: ConfigBlob, facts: Facts | None) -> frozenset[str]:
    """What the files have and no runner offers (6.1, step 7)."""
    families = {config.model_family, *(config.model_families or ())}
    omni = "nemotron_h_omni" in families
    if is_mlx(config):
        nemotron = omni or "nemotron-3-nano" in (config.parser, config.renderer)
        if nemotron or config.renderer in _GEMMA4_RENDERERS:
            return frozenset({"audio", "vision"})
        if config.renderer == "glimmer":
            return frozenset({"audio"})
    if omni or (facts is not None and facts.arch == "nemotron_h_omni"):
        return frozenset({"audio"})
    return frozenset()
