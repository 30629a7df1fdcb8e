"""Parameters: names, types, and the values that their texts stand for (1.7, cli.md 10.5). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ollamad.errors import UsageError
from ollamad.modelfile.numbers import integral_or_float, shortest_float32

ParameterType = Literal["int", "float", "bool", "strings"]
ParameterValue = int | float | bool | list[str]

TYPES: dict[str, ParameterType] = {
    "num_keep": "int",
    "seed": "int",
    "num_predict": "int",
    "top_k": "int",
    "top_p": "float",
    "min_p": "float",
    "typical_p": "float",
    "repeat_last_n": "int",
    "temperature": "float",
    "repeat_penalty": "float",
    "presence_penalty": "float",
    "frequency_penalty": "float",
    "stop": "strings",
    "num_ctx": "int",
    "num_parallel": "int",
    "num_batch": "int",
    "num_gpu": "int",
    "main_gpu": "int",
    "use_mmap": "bool",
    "num_thread": "int",
    "draft_num_predict": "int",
}

#: Accepted in a Modelfile with any value, warned about, not sent.
DEPRECATED = frozenset(
    {
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
    }
)

# ``int()`` and ``float()`` accept more: underscores, blanks, digits of other scripts.
_INT = re.compile(r"([+-]?)0*([0-9]{1,19})")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(
    r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+"
)

_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


def parameter_value(name: str, values: Sequence[str]) -> ParameterValue:
    """What ``values``, the words given for the parameter ``name``, mean.

    Scalars take the first value; ``stop`` takes all. Raises UsageError ``unknown parameter 'N'``
    and ``invalid int value [V]`` (``float``, ``bool``; all values between the brackets).
    """
    kind = TYPES.get(name)
    if kind is None:
        raise UsageError(f"unknown parameter '{name}'")
    if kind == "strings":
        return list(values)
    first = values[0] if values else ""
    value: ParameterValue | None
    if kind == "int":
        value = _int(first)
    elif kind == "float":
        value = _float(first)
    else:
        value = _BOOLS.get(first)
    if value is None:
        raise UsageError(f"invalid {kind} value [{' '.join(values)}]")
    return value


def _int(text: str) -> int | None:
    match = _INT.fullmatch(text)
    if match is None:
        return None
    value = int(match[1] + match[2])
    return value if -(2**63) <= value < 2**63 else None


def _float(text: str) -> float | None:
    # Infinities and NaN do not match: JSON cannot carry them.
    try:
        if _DECIMAL.fullmatch(text):
            return integral_or_float(shortest_float32(float(text)))
        if _HEXADECIMAL.fullmatch(text):
            return integral_or_float(shortest_float32(float.fromhex(text)))
    except OverflowError:
        return None
    return None
