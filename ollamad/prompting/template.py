"""A model's Go template: parsed once, asked for what it can do, rendered to prompts. Pure.

Source: prompting.md 3; 1.3 (round trip), 7.1 and 8.1 (tags).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

from ollamad.errors import OllamadError
from ollamad.gotemplate.errors import TemplateRunError, TemplateSyntaxError
from ollamad.gotemplate.nodes import ActionNode, CommandNode, FieldNode, ListNode, PipeNode
from ollamad.gotemplate.template import Parsed, parse
from ollamad.prompting import tags
from ollamad.prompting.day import Day
from ollamad.prompting.legacy import Turn, cut_after_response, render_turns
from ollamad.prompting.template_data import MessageData, MessagesData, ToolsData, collated
from ollamad.prompting.template_functions import FUNCTIONS, on
from ollamad.wire import Message, Think, Tool

__all__ = ["Template", "TemplateSyntaxError", "parse_template"]

_TOOL_RESULTS = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")


@lru_cache(maxsize=1024)
def parse_template(text: str) -> Template:
    """The template that ``text`` is; an action that prints the response is added at its end if it
    has neither messages nor a response.

    Raises TemplateSyntaxError with the reference's text.
    """
    parsed = parse(text, FUNCTIONS)
    trees = [parsed.root, *parsed.definitions.values()]
    if tags.calls_without_data(trees):
        raise TemplateSyntaxError("undefined template specified")
    variables = tags.variables(trees)
    if not variables & {"messages", "response"}:
        # As a node, since a text may end with a brace that would open the action.
        parsed.root.nodes.append(_response(len(text)))
        variables |= {"response"}
    return Template(text, parsed, variables)


def _response(position: int) -> ActionNode:
    """``{{ .Response }}``"""
    field = FieldNode(position, ("Response",))
    return ActionNode(position, PipeNode(position, [CommandNode(position, [field])]))


class Template:
    """A parsed template. ``text`` is as it was stored. Immutable; made by `parse_template`."""

    def __init__(self, text: str, parsed: Parsed, variables: frozenset[str]) -> None:
        self.text = text
        self._parsed = parsed
        #: The lower-cased names of all data that it asks for, at any level (3.2).
        self.variables = variables

    @cached_property
    def thinking_tags(self) -> tuple[str, str]:
        """What it writes before and after a message's reasoning; "" for what is not known."""
        return tags.thinking_tags(self._parsed.root)

    @cached_property
    def tool_tag(self) -> str:
        """What it writes before a message's tool calls, ``{`` if nothing."""
        return tags.tool_tag(self._parsed.root)

    @property
    def has_tool_round_trip(self) -> bool:
        """Whether it shows tools, calls and their results (1.3)."""
        return {"tools", "toolcalls"} <= self.variables and any(
            mark in self.text for mark in _TOOL_RESULTS
        )

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        think: Think | None = None,
        today: Day | None = None,
    ) -> str:
        """The prompt of a conversation.

        ``tools``: None prints ``null``, an empty list ``[]``. ``today`` is the local date for
        templates that show it; without one they fail. Raises OllamadError (500) with the
        reference's text when the template fails.
        """
        system, merged = collated(messages)
        with on(today):
            if "messages" not in self.variables:
                return render_turns(merged, lambda turn, last: self._turn(turn, last, think))
            return self._execute(
                {
                    "System": system,
                    "Messages": MessagesData([MessageData(message) for message in merged]),
                    "Tools": ToolsData(tools),
                    "Response": "",
                    **_thinking(think),
                }
            )

    def render_infill(
        self, prompt: str, suffix: str, *, think: Think | None = None, today: Day | None = None
    ) -> str:
        """The prompt for the text between ``prompt`` and ``suffix``. Raises as `render` does."""
        with on(today):
            return self._execute(
                {"Prompt": prompt, "Suffix": suffix, "Response": "", **_thinking(think)}
            )

    def _turn(self, turn: Turn, last: bool, think: Think | None) -> str:
        values = {"System": turn.system, "Prompt": turn.prompt, "Response": turn.response}
        return self._execute(values | _thinking(think), self._cut if last else None)

    @cached_property
    def _cut(self) -> ListNode:
        return cut_after_response(self._parsed.root)

    def _execute(self, data: dict[str, Any], root: ListNode | None = None) -> str:
        try:
            return self._parsed.execute(data, root)
        except TemplateRunError as error:
            raise OllamadError(str(error)) from error


def _thinking(think: Think | None) -> dict[str, Any]:
    level: str = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}
