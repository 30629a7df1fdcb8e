"""What ``run`` was asked for, and how the model it names answers: shared by one-shot and REPL."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import msgspec

from ollamad.cli.answer import AnswerText
from ollamad.cli.bodies import KeepAlive, keep_alive
from ollamad.cli.flags import Parsed
from ollamad.cli.progress import Display
from ollamad.errors import UsageError, quoted
from ollamad.wire import ShowResponse, Think, ToolCall

_LEVELS = ("high", "medium", "low", "max")


@dataclass(frozen=True, slots=True)
class Wishes:
    """The flags of ``run`` that shape every request and every answer."""

    think: Think | None = None
    #: Whether the user chose ``think``; else it follows the model.
    think_chosen: bool = False
    keep_alive: KeepAlive | None = None
    format: msgspec.Raw | None = None
    verbose: bool = False
    wordwrap: bool = True
    hide_thinking: bool = False

    def for_model(self, shown: ShowResponse) -> Wishes:
        """With ``think`` as the model's capabilities suggest, unless the user chose it."""
        if self.think_chosen:
            return self
        return replace(self, think=True if "thinking" in shown.capabilities else None)


def wishes(parsed: Parsed) -> Wishes:
    """Raises UsageError for a bad ``--think``, ``--keepalive`` or ``--format``."""
    duration = parsed.text("keepalive")
    try:
        kept = keep_alive(duration) if duration else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    given = "think" in parsed.given
    return Wishes(
        think=think_value(parsed.text("think")) if given else None,
        think_chosen=given,
        keep_alive=kept,
        format=format_value(parsed.text("format")),
        verbose=parsed.switch("verbose"),
        wordwrap=not parsed.switch("nowordwrap"),
        hide_thinking=parsed.switch("hidethinking"),
    )


def think_value(text: str) -> Think:
    """The value of ``--think`` (5.5)."""
    if text in ("", "true"):
        return True
    if text == "false":
        return False
    if text in _LEVELS:
        return cast(Think, text)
    raise UsageError(
        f"invalid value for --think: {quoted(text)} (must be true, false, high, medium, low, or "
        "max)"
    )


def format_value(text: str) -> msgspec.Raw | None:
    """``json`` is a name, anything else is JSON already and keeps its text."""
    if not text:
        return None
    if text == "json":
        return msgspec.Raw(b'"json"')
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise UsageError(f"--format must be json or a JSON schema: {error}") from None
    return msgspec.Raw(text.encode())


def is_multimodal(shown: ShowResponse) -> bool:
    """Whether files may be named in prompts for the model (5.2)."""
    return (
        not {"vision", "audio"}.isdisjoint(shown.capabilities)
        or bool(shown.projector_info)
        or any(".vision." in key for key in shown.model_info)
    )


class AnswerWriter:
    """Writes an answer to stdout as it comes; until then something moves on stderr."""

    def __init__(self, wishes: Wishes) -> None:
        terminal = sys.stdout.isatty()
        columns = _columns() if terminal and wishes.wordwrap else None
        self._text = AnswerText(
            columns=columns, plain=not terminal, hide_thinking=wishes.hide_thinking
        )
        self._wait_for_text = wishes.hide_thinking
        self._display = Display(transient=True)

    def event(self, thinking: str, content: str, calls: list[ToolCall] | None = None) -> None:
        text = self._text.event(thinking, content, calls)
        if text or not self._wait_for_text:
            self._display.end()
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """However the answer ends, the terminal is as it was."""
        with self._display:
            self._display.spin()
            try:
                yield
            finally:
                sys.stdout.write(self._text.end())


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 0
