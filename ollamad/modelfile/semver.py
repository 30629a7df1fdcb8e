"""Versions of REQUIRES: the lenient form of semantic versions that Go reads (3.1, 4.13). Pure."""

from __future__ import annotations

import re

_NUMBER = r"(0|[1-9][0-9]*)"
_PRE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"v{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER}"
    rf"(?:-({_PRE}(?:\.{_PRE})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?"
)

#: Sorts as versions do: numbers, then a release after its pre-releases.
SortKey = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def sort_key(version: str) -> SortKey | None:
    """What versions are compared by; none when ``version`` is not one. A leading ``v`` is optional.

    Missing numbers are 0; build metadata does not count.
    """
    match = _VERSION.fullmatch(version if version.startswith("v") else f"v{version}")
    if match is None:
        return None
    major, minor, patch, pre = match.groups()
    parts = tuple(
        (False, int(part), "") if part.isdigit() else (True, 0, part)
        for part in (pre.split(".") if pre else ())
    )
    return int(major), int(minor or 0), int(patch or 0), not parts, parts


def is_newer(version: str, than: str) -> bool:
    """Whether both are versions and ``version`` comes after ``than``."""
    left, right = sort_key(version), sort_key(than)
    return left is not None and right is not None and left > right
