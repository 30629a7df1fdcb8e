"""``show``: what a model is made of, in sections (``cli.md`` 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ollamad.cli.commands import Invocation
from ollamad.cli.numbers import SHORT, shortest
from ollamad.cli.table import WRAP_WIDTH, table
from ollamad.cli.width import width
from ollamad.errors import OllamadError, UsageError
from ollamad.units import human_number
from ollamad.wire import ShowRequest, ShowResponse, TensorInfo

_PARTS = ("license", "modelfile", "parameters", "system", "template")
_TEXT_WRAP = 100
_TEXT_LINES = 2
#: Columns for the items of an array in the metadata.
_ARRAY_BUDGET = 10

Row = Sequence[str]


def show(invocation: Invocation) -> int:
    """``show MODEL``, all of it or one part."""
    parts = [part for part in _PARTS if invocation.parsed.switch(part)]
    if len(parts) > 1:
        raise UsageError(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' "
            "can be specified"
        )
    model = invocation.words[0]
    verbose = invocation.parsed.switch("verbose")
    request = ShowRequest(model=model, name=model, verbose=verbose)
    shown = invocation.client.post(ShowResponse, "/api/show", request)
    refuse_image_models(shown)
    if not parts:
        print(sections(shown, verbose), end="")
    else:
        # A template or a system message is printed to the byte.
        print(getattr(shown, parts[0]), end="" if parts[0] in ("system", "template") else "\n")
    return 0


def refuse_image_models(shown: ShowResponse) -> None:
    """Raise OllamadError for a model that makes images."""
    if "image" in shown.capabilities:
        raise OllamadError("image generation models are not currently supported")


def sections(shown: ShowResponse, verbose: bool) -> str:
    """All sections that have something to say. Pure."""
    text = _section("Model", _model_rows(shown))
    if shown.capabilities:
        text += _section("Capabilities", [(c,) for c in shown.capabilities])
    if shown.projector_info is not None:
        text += _section("Projector", _projector_rows(shown.projector_info))
    if shown.parameters:
        lines = (line.split() for line in shown.parameters.split("\n"))
        text += _section("Parameters", [cells for cells in lines if cells])
    if verbose and shown.model_info:
        text += _section("Metadata", _metadata_rows(shown.model_info))
    if verbose and shown.tensors:
        text += _section("Tensors", _tensor_rows(shown.tensors))
    if shown.system:
        text += _section("System", _first_lines(shown.system), _TEXT_WRAP)
    if shown.license:
        text += _section("License", _first_lines(shown.license), _TEXT_WRAP)
    return text


def _section(title: str, rows: Sequence[Row], wrap: int = WRAP_WIDTH) -> str:
    # The empty first column makes the indentation.
    return f"  {title}\n{table([('', *row) for row in rows], wrap=wrap)}\n"


def _model_rows(shown: ShowResponse) -> list[Row]:
    rows: list[Row] = []
    if shown.remote_host:
        rows += [("Remote model", shown.remote_model), ("Remote URL", shown.remote_host)]
    info, details = shown.model_info, shown.details
    if info:
        arch = _text(info.get("general.architecture"))
        if arch:
            rows.append(("architecture", arch))
        count = info.get("general.parameter_count")
        if details.parameter_size:
            rows.append(("parameters", details.parameter_size))
        elif _is_number(count):
            rows.append(("parameters", human_number(int(count))))
        for title, key in (
            ("context length", "context_length"),
            ("embedding length", "embedding_length"),
        ):
            rows += _number_row(title, info.get(f"{arch}.{key}"))
    else:
        rows.append(("architecture", details.family))
        rows.append(("parameters", details.parameter_size))
    rows.append(("quantization", details.quantization_level))
    if shown.requires:
        rows.append(("requires", shown.requires))
    return rows


def _projector_rows(info: Mapping[str, Any]) -> list[Row]:
    arch = _text(info.get("general.architecture"))
    rows: list[Row] = [("architecture", arch)] if arch else []
    count = info.get("general.parameter_count")
    if _is_number(count):
        rows.append(("parameters", human_number(int(count))))
    for title, key in (("embedding length", "embedding_length"), ("dimensions", "projection_dim")):
        for part in ("vision", "audio"):
            row = _number_row(title, info.get(f"{arch}.{part}.{key}"))
            if row:
                rows += row
                break
    return rows


def _number_row(title: str, value: Any) -> list[Row]:
    if not _is_number(value):
        return []
    return [(title, f"{value:.0f}" if isinstance(value, float) else str(value))]


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _metadata_rows(info: Mapping[str, Any]) -> list[Row]:
    return [(key, metadata_value(info[key])) for key in sorted(info)]


def metadata_value(value: Any) -> str:
    """A value of the metadata in one cell; long arrays are cut. Pure."""
    if isinstance(value, list):
        return _array(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return shortest(value, SHORT)
    if value is None:
        return "null"
    return value if isinstance(value, str) else "{...}"


def _array(items: list[Any]) -> str:
    shown: list[str] = []
    used = 1
    for item in items:
        text = metadata_value(item)
        used += width(text) + (2 if shown else 0)
        if shown and used > _ARRAY_BUDGET:
            break
        shown.append(text)
    left = len(items) - len(shown)
    if left:
        shown.append(f"...+{left} more")
    return f"[{' '.join(shown)}]"


def _tensor_rows(tensors: Sequence[TensorInfo]) -> list[Row]:
    return [(t.name, t.type, f"[{' '.join(map(str, t.shape))}]") for t in tensors]


def _first_lines(text: str) -> list[Row]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    rows: list[Row] = [(line,) for line in lines[:_TEXT_LINES]]
    if len(lines) > _TEXT_LINES:
        rows.append(("...",))
    return rows
