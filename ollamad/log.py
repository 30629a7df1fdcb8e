"""The log: one record a line on stderr, as ``key=value`` text or as JSON.

``runners-and-scheduling.md`` 5.4. Modules log through the standard library
(``logging.getLogger(__name__)``) and add fields with ``extra``: either directly, or through
`fields` where a key is one that the library keeps for itself, such as ``name``.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any, Literal, TextIO

#: The level below DEBUG; ``logger.log(TRACE, …)``.
TRACE = 5

#: The logger of what runners print: a record is one or more of their lines.
RUNNER_OUTPUT = "ollamad.runners.output"

_NAMES = {TRACE: "TRACE", 10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR"}
# What every record has; anything else came in through ``extra``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "fields"}


#: Characters of a value; what clients send may end up in one.
_LONGEST = 8192

# Most values: ASCII without blank, quote and equals sign.
_PLAIN = re.compile(r"[!#-<>-~]+").fullmatch


def fields(**values: object) -> dict[str, Any]:
    """For ``extra=``: fields under any name."""
    return {"fields": values}


def python_level(level: int) -> int:
    """The standard library's level for one of the settings: 0 INFO, -4 DEBUG, -8 TRACE, 4 WARN.

    Below TRACE everything is shown.
    """
    if level >= -4:
        return 20 + level * 10 // 4
    return TRACE if level >= -8 else 1


def configure(
    level: int, format: Literal["text", "json"] = "text", stream: TextIO | None = None
) -> None:
    """Send all logging to ``stream`` (stderr) in this format; replaces what was configured.

    ``level`` is as in the settings (0 INFO, -4 DEBUG …) and holds for our own records. Libraries
    are heard from WARN up, from their own debug records on only with TRACE: they log bodies.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(TextFormatter() if format == "text" else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    ours = python_level(level)
    root.setLevel(ours if ours <= TRACE else max(ours, logging.WARNING))
    logging.getLogger("ollamad").setLevel(ours)
    # It would show the heads of answers, with URLs in them that are as good as a password.
    logging.getLogger("httpcore").setLevel(max(ours, logging.WARNING))
    # What no format here shows need not be found out for every record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # A broken stderr must not print tracebacks to it.
    logging.raiseExceptions = False


class TextFormatter(logging.Formatter):
    """``time=… level=INFO source=server.py:208 msg="…" key=value``; runners' lines as they are."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == RUNNER_OUTPUT:
            return record.getMessage()
        return " ".join(f"{key}={_text(value)}" for key, value in _items(record))


class JsonFormatter(logging.Formatter):
    """The same keys as one JSON object. Numbers and booleans stay what they are."""

    def format(self, record: logging.LogRecord) -> str:
        plain = (str, int, float, bool, type(None))
        values = {k: v if isinstance(v, plain) else str(v) for k, v in _items(record)}
        if record.name == RUNNER_OUTPUT:
            lines = record.getMessage().split("\n")
            return "\n".join(json.dumps({**values, "msg": _cut(line)}) for line in lines)
        return json.dumps(values)


def _items(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    yield "time", timestamp(record.created)
    yield "level", _level(record.levelno)
    yield "source", f"{record.filename}:{record.lineno}"
    yield "msg", _cut(record.getMessage())
    for key, value in getattr(record, "fields", {}).items():
        yield key, _cut(value)
    for key, value in record.__dict__.items():
        if key not in _STANDARD:
            yield key, _cut(value)
    if record.exc_info and record.exc_info[0] is not None:
        yield "traceback", "".join(traceback.format_exception(*record.exc_info)).rstrip()


def _cut(value: object) -> object:
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{value[:_LONGEST]}… ({len(value)} characters)"
    return value


_second: tuple[int, str, str] = (-1, "", "")


def timestamp(unix: float) -> str:
    """Milliseconds and the local zone's offset, ``Z`` when that is UTC."""
    global _second  # noqa: PLW0603 - one entry: records come many to a second
    if _second[0] != int(unix):
        local = time.localtime(unix)
        offset = local.tm_gmtoff // 60
        sign = "-" if offset < 0 else "+"
        zone = f"{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}" if offset else "Z"
        _second = (int(unix), time.strftime("%Y-%m-%dT%H:%M:%S", local), zone)
    _, text, zone = _second
    return f"{text}.{int(unix * 1000) % 1000:03d}{zone}"


def _level(levelno: int) -> str:
    """The level's name, or the nearest named one below it with the distance in quarter steps."""
    if (name := _NAMES.get(levelno)) is not None:
        return name
    base = max((n for n in _NAMES if n <= levelno), default=TRACE)
    return f"{_NAMES[base]}{(levelno - base) * 4 // 10:+d}"


def _text(value: object) -> str:
    """``value`` as text, quoted where a reader of ``key=value`` lines would lose its way."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "" if value is None else str(value)
    if _PLAIN(text):
        return text
    if text and text.isprintable() and not any(c in text for c in ' ="'):
        return text
    # Control characters (of terminals, too) come out as escapes; other languages stay readable.
    return json.dumps(text, ensure_ascii=not text.isprintable())
