"""Built-in renderers by name (renderers-and-parsers 1.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import wraps

from ollamad.errors import BadRequest, OllamadError, quoted
from ollamad.prompting.renderers import (
    cogito,
    cohere,
    deepseek3_1,
    functiongemma,
    gemma4,
    glimmer,
    glm,
    laguna,
    lfm2,
    nemotron,
    olmo3,
    qwen3_5,
    qwen3_coder,
    qwen3_vl,
)
from ollamad.prompting.renderers.conversation import Conversation, Render, Renderer

_FAMILIES = (
    cogito.RENDERERS,
    cohere.RENDERERS,
    deepseek3_1.RENDERERS,
    functiongemma.RENDERERS,
    gemma4.RENDERERS,
    glimmer.RENDERERS,
    glm.RENDERERS,
    laguna.RENDERERS,
    lfm2.RENDERERS,
    nemotron.RENDERERS,
    olmo3.RENDERERS,
    qwen3_5.RENDERERS,
    qwen3_coder.RENDERERS,
    qwen3_vl.RENDERERS,
)

_GEMMA4 = "gemma4"
_GEMMA4_LARGE = "gemma4-large"
_SMALL_NAMES = ("e2b", "e4b")
_LARGE_NAMES = ("12b", "26b", "31b")
_LARGE_PARAMETERS = 12e9
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([BMK])\s*", re.IGNORECASE)
_UNITS = {"B": 1e9, "M": 1e6, "K": 1e3}


def find_renderer(
    name: str, *, model_names: Sequence[str] = (), parameter_size: str = ""
) -> Renderer:
    """The renderer called ``name``; raises OllamadError for a name that is none.

    ``gemma4`` stands for a small or a large one, told apart by ``model_names`` (the short name,
    then the full one), else by ``parameter_size`` (``25.2B``).
    """
    if name == _GEMMA4 and _is_large_gemma4(model_names, parameter_size):
        name = _GEMMA4_LARGE
    renderer = _RENDERERS.get(name)
    if renderer is None:
        raise OllamadError(f"unknown renderer {quoted(name)}")
    return renderer


def renderer_names() -> frozenset[str]:
    return frozenset(_RENDERERS)


def _is_large_gemma4(model_names: Sequence[str], parameter_size: str) -> bool:
    for model_name in model_names:
        lowered = model_name.lower()
        if any(size in lowered for size in _SMALL_NAMES):
            return False
        if any(size in lowered for size in _LARGE_NAMES):
            return True
    size = _SIZE.fullmatch(parameter_size)
    return size is not None and float(size[1]) * _UNITS[size[2].upper()] >= _LARGE_PARAMETERS


def _guarded(render: Render) -> Render:
    """Schemas and arguments come from clients and may be nested deeper than our stack."""

    @wraps(render)
    def guarded(conversation: Conversation) -> str:
        try:
            return render(conversation)
        except RecursionError:
            raise BadRequest("tools or tool calls are nested too deep") from None

    return guarded


_RENDERERS = {
    renderer.name: renderer._replace(render=_guarded(renderer.render))
    for family in _FAMILIES
    for renderer in family
}
