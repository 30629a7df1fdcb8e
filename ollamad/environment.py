"""What the text of an environment variable means: one reader for each kind of value.

``runners-and-scheduling.md`` 5.2, 5.3 and 8.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ollamad.cloud_base import CloudBase, parse_cloud_base
from ollamad.errors import UsageError
from ollamad.host import Host, parse_host
from ollamad.units import format_duration, parse_duration

#: Nanoseconds that stand for "never", about 292 years.
FOREVER = 2**63 - 1
_UINT64_MAX = 2**64 - 1
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_INTEGER = re.compile(r"[+-]?[0-9]+")

_LOCAL_ORIGINS = tuple(
    f"{scheme}://{host}{port}"
    for host in ("localhost", "127.0.0.1", "0.0.0.0")
    for port in ("", ":*")
    for scheme in ("http", "https")
)
_APP_ORIGINS = ("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*")
BUILT_IN_ORIGINS = _LOCAL_ORIGINS + _APP_ORIGINS

Kind = Literal[
    "switch",  # bool
    "optional switch",  # bool | None
    "number",  # int >= 0
    "duration",  # int, nanoseconds
    "level",  # int, 0 INFO, -4 DEBUG, -8 TRACE, 4 WARN, 8 ERROR
    "address",  # Host
    "origins",  # tuple[str, ...] with the built-in ones
    "list",  # tuple[str, ...]
    "path",  # Path | None
    "text",  # str
    "log format",  # "text" | "json"
    "cloud address",  # CloudBase
]


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable. ``field`` names the attribute of `Settings`, or is empty for those
    that other parts or libraries read. ``default`` is text of the same syntax as a value.
    """

    name: str
    kind: Kind
    default: str
    help: str
    field: str = ""
    #: Whether ``serve --help`` shows it.
    listed: bool = False
    #: Durations up to this many nanoseconds mean `FOREVER`.
    forever_up_to: int | None = None

    @property
    def shown_default(self) -> str:
        """The default as the docs and the help show it; empty when there is none."""
        if self.kind == "switch":
            return "true" if self.default == "1" else "false"
        return self.default


class Warned(NamedTuple):
    """A value that could not be used and what is used instead; to be logged once logging works."""

    message: str
    key: str
    value: str
    default: str


_LEVELS = ((8, "ERROR"), (4, "WARN"), (0, "INFO"))


def level_name(level: int) -> str:
    """``INFO``, ``DEBUG-4``, ``ERROR+4``: the named level at or below, and the distance to it."""
    base, name = next((named for named in _LEVELS if level >= named[0]), (-4, "DEBUG"))
    return f"{name}{level - base:+d}" if level != base else name


def boolean(text: str) -> bool:
    """The few spellings of false are false, any other text that is not empty is true."""
    return bool(text) and text not in _FALSE


def _optional_boolean(text: str) -> bool | None:
    return boolean(text) if text else None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > _UINT64_MAX:
        raise ValueError(text)
    return int(text)


def duration(text: str) -> int:
    """Nanoseconds of a Go duration or of a whole number of seconds. Raises ValueError."""
    try:
        return parse_duration(text)
    except ValueError:
        if not _INTEGER.fullmatch(text):
            raise
    # Beyond what the clock can count is as good as for ever.
    return max(-FOREVER, min(int(text) * 1_000_000_000, FOREVER))


def _level(text: str) -> int:
    if text in _TRUE:
        return -4
    if text in _FALSE or not _INTEGER.fullmatch(text):
        return 0
    return -4 * int(text)


def _origins(text: str) -> tuple[str, ...]:
    return (*(text.split(",") if text else ()), *BUILT_IN_ORIGINS)


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _path(text: str) -> Path | None:
    return Path(text) if text else None


_READERS: dict[Kind, Callable[[str], Any]] = {
    "switch": boolean,
    "optional switch": _optional_boolean,
    "number": _number,
    "duration": duration,
    "level": _level,
    "origins": _origins,
    "list": _list,
    "path": _path,
    "text": str,
    "cloud address": parse_cloud_base,
}


def read(variable: Variable, text: str, warnings: list[Warned]) -> Any:
    """The value of ``variable`` for the environment's ``text``, its default for empty or bad."""
    if variable.kind == "address":
        return parse_host(
            text,
            lambda port: warnings.append(
                Warned("invalid port, using default", variable.name, port, "")
            ),
        )
    if variable.kind == "log format":
        if text not in ("", "text", "json"):
            raise UsageError(f'{variable.name} must be "text" or "json", not "{text}"')
        return text or variable.default
    reader = _READERS[variable.kind]
    try:
        value = reader(text or variable.default)
    except ValueError:
        if variable.kind in ("number", "cloud address"):
            warnings.append(
                Warned(
                    "invalid environment variable, using default",
                    variable.name,
                    # An address may hold a password.
                    "(hidden)" if "@" in text else text,
                    variable.default,
                )
            )
        value = reader(variable.default)
    if variable.forever_up_to is not None and value <= variable.forever_up_to:
        return FOREVER
    return value


def shown(variable: Variable, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Host | CloudBase):
        return value.url
    if isinstance(value, tuple):
        return f"[{' '.join(value)}]"
    if variable.kind == "duration":
        return format_duration(value)
    if variable.kind == "level":
        return level_name(value)
    return str(value)
