"""``info`` of a create request: config values given by the client (http-api 14.5, 4.10). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ollamad.errors import BadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What was given; empty and 0 mean not given."""

    capabilities: tuple[str, ...] = ()
    model_family: str = ""
    base_name: str = ""
    quantization_level: str = ""
    parameter_size: str = ""
    context_length: int = 0
    embedding_length: int = 0


def parse_info(info: Mapping[str, Any] | None) -> Info:
    """Raises BadRequest for the first field of a wrong type, in the order of ``Info``.

    Unknown keys, and ``capabilities`` that are not a list, are ignored.
    """
    if not info:
        return Info()
    capabilities = info.get("capabilities")
    items = capabilities if isinstance(capabilities, list) else []
    return Info(
        capabilities=tuple(item for item in items if isinstance(item, str)),
        model_family=_text(info, "model_family"),
        base_name=_text(info, "base_name"),
        quantization_level=_text(info, "quantization_level"),
        parameter_size=_text(info, "parameter_size"),
        context_length=_count(info, "context_length"),
        embedding_length=_count(info, "embedding_length"),
    )


def _text(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key, "")
    if not isinstance(value, str):
        raise BadRequest(f'info field "{key}" must be a string')
    return value


def _count(info: Mapping[str, Any], key: str) -> int:
    value = info.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f'info field "{key}" must be a number')
    if not 0 <= value < 2**63 or value != int(value):
        raise BadRequest(f'info field "{key}" must be a non-negative integer')
    return int(value)
