"""How an answer looks while it streams: thinking, content, tool calls, timings (``cli.md`` 5).

Pure: events in, text out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ollamad.cli.wordwrap import WordWrap
from ollamad.units import SECOND, format_duration
from ollamad.wire import ChatResponse, GenerateResponse, ToolCall

GREY, BOLD, RESET = "\x1b[38;5;245m", "\x1b[1m", "\x1b[0m"
_OPENING, _CLOSING = "Thinking...\n", "...done thinking.\n\n"


class AnswerText:
    """The text on stdout for one answer.

    ``columns`` is the width at which words wrap, None for no wrapping. ``plain`` leaves out all
    escape codes but those of wrapping.
    """

    def __init__(self, *, columns: int | None, plain: bool, hide_thinking: bool) -> None:
        self._wrap = None if columns is None else WordWrap(columns)
        self._plain = plain
        self._hide_thinking = hide_thinking
        self._thinking = False
        self._thinking_ended_line = False

    def event(self, thinking: str, content: str, tool_calls: Sequence[ToolCall] | None) -> str:
        """What one event adds."""
        text = ""
        if thinking and not self._hide_thinking:
            if not self._thinking:
                self._thinking = True
                text += _OPENING if self._plain else f"{GREY}{BOLD}{_OPENING}{RESET}{GREY}"
                self._start_line()
            text += self._wrapped(thinking)
            self._thinking_ended_line = thinking.endswith("\n")
        if self._thinking and (content or tool_calls):
            self._thinking = False
            text += "" if self._thinking_ended_line else "\n"
            text += _CLOSING if self._plain else f"{GREY}{BOLD}{_CLOSING}{RESET}"
            self._start_line()
        text += self._wrapped(content)
        if tool_calls:
            text += "\n".join(tool_call_text(call, self._plain) for call in tool_calls)
        return text

    def end(self) -> str:
        """What an answer that breaks off leaves to be undone on a terminal."""
        return RESET if self._thinking and not self._plain else ""

    def _wrapped(self, text: str) -> str:
        return text if self._wrap is None else self._wrap.feed(text)

    def _start_line(self) -> None:
        if self._wrap is not None:
            self._wrap.reset()


def tool_call_text(call: ToolCall, plain: bool) -> str:
    """No tools are offered here, so a call of one is told and goes no further."""
    name = f"{call.function.name}()"
    arguments = json.dumps(call.function.arguments, ensure_ascii=False, separators=(",", ":"))
    on, off = ("", "") if plain else (f"{GREY}{BOLD}", RESET)
    return (
        f"{on}  Model called a non-existent function '{off}{name}{on}' with arguments: "
        f"{off}{arguments}"
    )


def timings(last: GenerateResponse | ChatResponse) -> str:
    """The lines of ``--verbose``, those whose value is known."""
    rows = [
        ("total duration", format_duration(last.total_duration), last.total_duration),
        ("load duration", format_duration(last.load_duration), last.load_duration),
    ]
    for label, count, nanoseconds in (
        ("prompt eval", last.prompt_eval_count, last.prompt_eval_duration),
        ("eval", last.eval_count, last.eval_duration),
    ):
        rows.append((f"{label} count", f"{count} token(s)", count))
        rows.append((f"{label} duration", format_duration(nanoseconds), nanoseconds))
        rate = count * SECOND / nanoseconds if nanoseconds > 0 else 0
        rows.append((f"{label} rate", f"{rate:.2f} tokens/s", nanoseconds))
    return "".join(f"{label + ':':22}{text}\n" for label, text, value in rows if value > 0)
