"""The config of a new model (4.9) and what an architecture asks for by default (4.12). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ollamad.create.info import Info
from ollamad.create.layers import Weights
from ollamad.create.origin import RemoteBase
from ollamad.store.config import EMPTY_CONFIG, ConfigBlob, DraftConfig
from ollamad.units import human_number
from ollamad.wire import CreateRequest

#: Renderer and parser of a model of the architecture, unless others are named.
_DEFAULT_RENDERER = {
    "gemma4": "gemma4",
    "laguna": "laguna",
    "nemotron_h": "nemotron-3-nano",
    "nemotron_h_moe": "nemotron-3-nano",
    "nemotron_h_omni": "nemotron-3-nano",
}

#: Stop sequences of the architecture, unless the model or the request has any.
DEFAULT_STOPS = {"gemma4": ("<turn|>",)}


def new_config(
    request: CreateRequest,
    info: Info,
    *,
    base: ConfigBlob = EMPTY_CONFIG,
    remote: RemoteBase | None = None,
    models: Sequence[Weights] = (),
    draft: Weights | None = None,
) -> ConfigBlob:
    """The config from what is given, what the base says and what the weights say, in this order.

    ``models``: the model layers in manifest order; ``draft``: the last draft layer. Family, size
    and quantization are never inherited but from a remote stub, which has no weights to tell them.
    """
    stub = base if base.is_remote and remote is None else EMPTY_CONFIG
    first = models[0] if models else None
    architectures = [weights.architecture for weights in models]
    families = _unique([*filter(None, [info.model_family]), *architectures])
    renderer = request.renderer or base.renderer
    parser = request.parser or base.parser
    for architecture in architectures:
        renderer = renderer or _DEFAULT_RENDERER.get(architecture, "")
        parser = parser or _DEFAULT_RENDERER.get(architecture, "")
    return ConfigBlob(
        model_format=base.model_format or ("gguf" if models else ""),
        model_family=info.model_family or (first.architecture if first else stub.model_family),
        model_families=families or stub.model_families,
        model_type=info.parameter_size
        or (human_number(first.parameter_count) if first else stub.model_type),
        file_type=info.quantization_level or (first.file_type if first else stub.file_type),
        renderer=renderer,
        parser=parser,
        requires=request.requires or base.requires,
        remote_host=remote.host if remote else stub.remote_host,
        remote_model=remote.model if remote else stub.remote_model,
        capabilities=_unique([*base.capabilities, *info.capabilities]),
        context_length=info.context_length or stub.context_length,
        embedding_length=info.embedding_length or stub.embedding_length,
        base_name=info.base_name or stub.base_name,
        draft=None
        if draft is None
        else DraftConfig(model_format="gguf", architecture=draft.architecture),
        architecture="amd64",
        os="linux",
    )


def takes_defaults(
    request: CreateRequest, base: ConfigBlob, models: Sequence[Weights]
) -> list[str]:
    """The architectures whose default parameters apply: renderer or parser was still empty."""
    renderer = request.renderer or base.renderer
    parser = request.parser or base.parser
    taking = []
    for weights in models:
        if not (renderer and parser):
            taking.append(weights.architecture)
            default = _DEFAULT_RENDERER.get(weights.architecture, "")
            renderer, parser = renderer or default, parser or default
    return taking


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
