"""Which handler a request goes to, and what is answered when there is none. Pure.

Source: http-api.md 1.6 to 1.10 and 5. Paths are decoded ones that start with a slash.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

_ORDER = ("HEAD", "GET", "POST", "DELETE")
#: Longest first, so that no part of a longer one is left over.
_UNCLEAN = ("//", "/./", "/../")

#: Takes an `ollamad.api.context.Context` and returns an `ollamad.api.responses.Response`.
Handler = Callable[[Any], Awaitable[Any]]


class Route(NamedTuple):
    """``path`` may have parameters: segments that start with a colon."""

    method: str
    path: str
    handler: Handler


class Match(NamedTuple):
    route: Route
    parameters: dict[str, str]


class Redirect(NamedTuple):
    status: int
    path: str


class Unrouted(NamedTuple):
    """``allow`` lists the methods of a known path; empty for an unknown one."""

    allow: tuple[str, ...]


class Router:
    """Resolves paths against a fixed table of routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._fixed: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[tuple[str, ...], dict[str, Route]]] = []
        for route in self.routes:
            self._methods_for(route.path)[route.method] = route

    def resolve(self, method: str, path: str) -> Match | Redirect | Unrouted:
        if any(part in path for part in _UNCLEAN) or path.endswith(("/.", "/..")):
            cleaned = clean(path)
            if cleaned != path:
                return Redirect(307, cleaned)
        methods, parameters = self._find(path)
        if method in methods:
            return Match(methods[method], parameters)
        if path != "/":
            other = path[:-1] if path.endswith("/") else f"{path}/"
            if method in self._find(other)[0]:
                return Redirect(301 if method == "GET" else 307, other)
        return Unrouted(tuple(name for name in _ORDER if name in methods))

    def _methods_for(self, path: str) -> dict[str, Route]:
        if "/:" not in path:
            return self._fixed.setdefault(path, {})
        segments = tuple(path.split("/"))
        for known, methods in self._patterns:
            if known == segments:
                return methods
        self._patterns.append((segments, {}))
        return self._patterns[-1][1]

    def _find(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        segments = path.split("/")
        for pattern, methods in self._patterns:
            parameters = _parameters(pattern, segments)
            if parameters is not None:
                return methods, parameters
        return {}, {}


def clean(path: str) -> str:
    """``path`` without empty, ``.`` and ``..`` segments; keeps one trailing slash."""
    cleaned = "/" + posixpath.normpath(path).lstrip("/")
    return f"{cleaned}/" if path.endswith("/") and cleaned != "/" else cleaned


def _parameters(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    parameters = {}
    for wanted, segment in zip(pattern, segments, strict=True):
        if wanted.startswith(":"):
            if not segment:
                return None
            parameters[wanted[1:]] = segment
        elif wanted != segment:
            return None
    return parameters
