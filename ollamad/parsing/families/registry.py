"""Parsers by the name that a model's config gives. Source: renderers-and-parsers.md 1.1."""

from __future__ import annotations

from ollamad.parsing.events import Parser, ParserFactory
from ollamad.parsing.families import (
    cohere,
    deepseek,
    functiongemma,
    gemma4,
    glimmer,
    glm,
    harmony,
    laguna,
    lfm2,
    ministral,
    olmo3,
    passthrough,
    qwen,
)

_FACTORIES: dict[str, ParserFactory] = {
    **qwen.PARSERS,
    **gemma4.PARSERS,
    **functiongemma.PARSERS,
    **passthrough.PARSERS,
    **cohere.PARSERS,
    **deepseek.PARSERS,
    **glimmer.PARSERS,
    **glm.PARSERS,
    **harmony.PARSERS,
    **laguna.PARSERS,
    **lfm2.PARSERS,
    **ministral.PARSERS,
    **olmo3.PARSERS,
}


def find_parser(name: str) -> Parser | None:
    """A new parser for one answer; None for an unknown name."""
    factory = _FACTORIES.get(name)
    return factory() if factory else None


def parser_names() -> tuple[str, ...]:
    """All names that ``find_parser`` knows."""
    return tuple(_FACTORIES)
