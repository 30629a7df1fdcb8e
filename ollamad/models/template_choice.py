"""Who makes a model's prompts: we, or llama.cpp with the GGUF's template (prompting.md 1). Pure.

The choice belongs to the model and the environment, never to a request: a runner is started for
one of the two and cannot change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ollamad.gguf.capabilities import has_tool_round_trip
from ollamad.gguf.facts import Facts
from ollamad.models.capabilities import GPT_OSS, capabilities, is_gguf, is_mlx
from ollamad.prompting.template import Template
from ollamad.store.config import ConfigBlob


class Choice(NamedTuple):
    """What makes the prompts of a model.

    ``source``: its name for the log. ``is_rendered``: the prompt is made here and completed;
    otherwise llama.cpp gets messages. ``uses_go_template``: the model has a template layer, and it
    counts. ``uses_chat_template``: the GGUF's own is applied.
    """

    source: str
    is_rendered: bool
    uses_go_template: bool
    uses_chat_template: bool
    uses_harmony: bool


def choose(
    config: ConfigBlob,
    facts: Facts | None,
    projectors: Sequence[Facts],
    template: Template,
    *,
    has_layer: bool,
    switch: bool | None,
) -> Choice:
    """The choice for a model with ``template``, stored with it if ``has_layer`` (1.1 to 1.4).

    ``switch``: ``OLLAMA_GO_TEMPLATE``, None when it is not set.
    """
    has_chat_template = facts is not None and is_gguf(config) and facts.chat_template != ""
    uses_harmony = _uses_harmony(config, template)
    if not has_layer:
        uses_go_template = False
    elif switch is not None:
        uses_go_template = switch
    else:
        uses_go_template = (
            facts is None
            or not has_chat_template
            or config.renderer != ""
            or config.parser != ""
            or uses_harmony
            or not _prefers_chat_template(config, facts, projectors, template)
        )
    is_rendered = (
        is_mlx(config)
        or config.renderer != ""
        or config.parser != ""
        or uses_harmony
        or uses_go_template
    )
    return Choice(
        source=_source(config, uses_harmony, uses_go_template, has_chat_template),
        is_rendered=is_rendered,
        uses_go_template=uses_go_template,
        uses_chat_template=has_chat_template and not is_rendered,
        uses_harmony=uses_harmony,
    )


def _uses_harmony(config: ConfigBlob, template: Template) -> bool:
    return (
        config.model_family in GPT_OSS
        and "<|start|>" in template.text
        and "<|end|>" in template.text
    )


def _prefers_chat_template(
    config: ConfigBlob, facts: Facts, projectors: Sequence[Facts], template: Template
) -> bool:
    """Whether the GGUF's template is worth more than the stored one (1.3)."""
    with_chat = set(capabilities(config, facts, projectors, chat_template=True))
    with_go = set(capabilities(config, facts, projectors, template=template))
    chat_trip = has_tool_round_trip(facts.chat_template)
    if len(with_chat) > len(with_go):
        return chat_trip or not template.has_tool_round_trip
    # A round trip implies tools, which both then have.
    return with_chat == with_go and chat_trip and not template.has_tool_round_trip


def _source(config: ConfigBlob, harmony: bool, go_template: bool, chat_template: bool) -> str:
    if config.renderer and config.parser:
        return "renderer_parser"
    if config.renderer:
        return "renderer"
    if config.parser:
        return "parser"
    if harmony:
        return "harmony"
    if go_template:
        return "go_template"
    return "gguf_chat_template" if chat_template else "none"
