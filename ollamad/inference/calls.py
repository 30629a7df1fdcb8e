"""Tool calls as clients get them. Pure. Source: http-api.md 8.8."""

from __future__ import annotations

from ollamad.prompting.renderers.forms import arguments_object
from ollamad.wire import ToolCall


def in_order(calls: list[ToolCall] | None) -> list[ToolCall] | None:
    """``calls``, whose arguments keep the model's order while objects in them are sorted by key."""
    for call in calls or ():
        call.function.arguments = arguments_object(call.function.arguments)
    return calls
