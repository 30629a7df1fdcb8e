"""The notation of gemma's tools and calls: ``{key:value}`` with marks for quotes (3.5, 3.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ollamad.prompting.renderers.forms import number_text

_INT64 = range(-(2**63), 2**63)


class Notation(NamedTuple):
    """``quote`` stands at both ends of a string, whose text is written as it is."""

    quote: str
    quotes_keys: bool = False

    def string(self, text: str) -> str:
        return f"{self.quote}{text}{self.quote}"

    def strings(self, texts: Sequence[str]) -> str:
        return f"[{','.join(map(self.string, texts))}]"

    def value(self, value: Any) -> str:
        """Any JSON value; the keys of objects are sorted."""
        if isinstance(value, str):
            return self.string(value)
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return _number(float(value))
        if isinstance(value, Mapping):
            return self.object(value)
        return f"[{','.join(map(self.value, value))}]"

    def object(self, members: Mapping[str, Any]) -> str:
        written = ",".join(
            f"{self._key(key)}:{self.value(members[key])}" for key in sorted(members)
        )
        return f"{{{written}}}"

    def _key(self, key: str) -> str:
        return self.string(key) if self.quotes_keys else key


def _number(value: float) -> str:
    """Whole numbers of 64 bits as plain digits, the rest as templates print it."""
    if value.is_integer() and int(value) in _INT64:
        return str(int(value))
    return number_text(value)
