"""Questions to the tools that a request declares. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ollamad.wire import Tool


def find_tool(tools: Sequence[Tool], name: str) -> Tool | None:
    """The first tool of that name."""
    return next((tool for tool in tools if tool.function.name == name), None)


def is_satisfied(tools: Sequence[Tool], name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether ``name`` is declared and ``arguments`` hold all that it requires.

    What a call must fulfil whose end is missing, to be believed to be whole.
    """
    tool = find_tool(tools, name)
    return tool is not None and all(
        required in arguments for required in tool.function.parameters.required
    )
