"""``POST /api/show``: everything that is known about a stored model (http-api.md 12.3).

Blocks on the disk; the API runs it in a thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ollamad.errors import model_not_found
from ollamad.gguf.info import model_info, projector_info, tensor_infos
from ollamad.gguf.reader import open_gguf
from ollamad.modelfile.format import StoredParts, model_modelfile, value_text
from ollamad.models.catalog import KnownModel
from ollamad.models.listing import details
from ollamad.timestamps import local_time
from ollamad.wire import Message, ShowRequest, ShowResponse

#: Parameter names are padded to this many columns.
_NAME_COLUMNS = 30


def show(model: KnownModel, request: ShowRequest) -> ShowResponse:
    """The answer for a local model or a stub. Raises NotFound for weights that are gone."""
    stored = model.stored
    system = request.system or stored.system
    answer = ShowResponse(
        license="\n".join(stored.licenses),
        modelfile=modelfile_of(model, system=system, options=request.options),
        parameters=parameter_lines(stored.params),
        template=model.template_in_use,
        system=system,
        details=details(model),
        messages=[Message(role=m.role, content=m.content) for m in stored.messages] or None,
        remote_model=stored.config.remote_model,
        remote_host=stored.config.remote_host,
        model_info={},
        capabilities=list(model.capabilities),
        modified_at=local_time(stored.modified_at_ns),
        requires=stored.config.requires,
    )
    if stored.config.is_remote:
        answer.model_info = stub_info(model)
        return answer
    if not model.weight_paths:
        raise model_not_found(model.short_name)
    model.check_complete()
    try:
        _add_weights(answer, model.weight_paths, verbose=request.verbose)
        if stored.projector_paths:
            with open_gguf(stored.projector_paths[0]) as file:
                answer.projector_info = projector_info(file, verbose=request.verbose)
    except FileNotFoundError as error:
        raise model_not_found(model.short_name) from error
    return answer


def _add_weights(answer: ShowResponse, paths: Sequence[Path], *, verbose: bool) -> None:
    """The keys of the first file and the tensors of all: shards are one model."""
    with open_gguf(paths[0]) as file:
        answer.model_info = model_info(file, verbose=verbose, whole=len(paths) == 1)
        tensors = tensor_infos(file)
    for path in paths[1:]:
        with open_gguf(path) as file:
            answer.model_info["general.parameter_count"] += file.parameter_count
            tensors += tensor_infos(file)
    answer.tensors = tensors or None


def stub_info(model: KnownModel) -> dict[str, Any]:
    """``model_info`` of a model that another server runs: what its config says."""
    config = model.stored.config
    if not config.model_family:
        return {}
    info: dict[str, Any] = {"general.architecture": config.model_family}
    if config.base_name:
        info["general.basename"] = config.base_name
    if config.context_length:
        info[f"{config.model_family}.context_length"] = config.context_length
    if config.embedding_length:
        info[f"{config.model_family}.embedding_length"] = config.embedding_length
    return info


def parameter_lines(params: Mapping[str, Any]) -> str:
    """One line for each value, names padded, texts quoted (http-api.md 12.3)."""
    return "\n".join(
        f"{name:<{_NAME_COLUMNS}} {_shown(item)}"
        for name, value in sorted(params.items())
        for item in (value if isinstance(value, list) else [value])
    )


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value_text(value)


def modelfile_of(model: KnownModel, *, system: str, options: Mapping[str, Any] | None) -> str:
    """The Modelfile text, with the request's overlays."""
    stored = model.stored
    parameters = {**stored.params, **(options or {})}
    return model_modelfile(
        StoredParts(
            short_name=model.short_name,
            model_format=stored.config.model_format or "gguf",
            model_paths=[str(p) for p in model.weight_paths],
            adapter_paths=[str(p) for p in stored.adapter_paths],
            draft_path="" if stored.draft_path is None else str(stored.draft_path),
            projector_paths=[str(p) for p in stored.projector_paths],
            template=model.template_text,
            system=system,
            renderer=stored.config.renderer,
            parser=stored.config.parser,
            parameters=parameters,
            licenses=stored.licenses,
            messages=stored.messages,
        )
    )
