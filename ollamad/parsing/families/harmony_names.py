"""Names of tools as gpt-oss may write them. Pure. Source: renderers-and-parsers.md 4.2."""

from __future__ import annotations

from collections.abc import Iterable

#: The model's own tools, which it was trained to call by these names.
_BUILT_IN = ("browser.open", "browser.search", "browser.find", "python")


def convert_names(names: Iterable[str]) -> list[str]:
    """``names`` made identifiers, each different from those before it, in the same order."""
    converted: list[str] = []
    for name in names:
        wanted = unique = _identifier(name)
        number = 2
        while unique in converted:
            unique = f"{wanted}_{number}"
            number += 1
        converted.append(unique)
    return converted


def _identifier(name: str) -> str:
    if name in _BUILT_IN:
        return name
    letters = ("_" if sign in " -." else sign for sign in name)
    text = "".join(sign for sign in letters if sign.isalpha() or sign.isdecimal() or sign in "_$")
    if not text:
        return "unnamed"
    return "_" + text if text[0].isdecimal() else text
