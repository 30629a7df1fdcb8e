"""Who reads a model's answer on the rendered path. Pure. Source: prompting.md 1.5 to 1.8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ollamad.gguf.capabilities import has_thinking
from ollamad.models.catalog import KnownModel
from ollamad.parsing.answer import AnswerParser, generic_parser, named_parser
from ollamad.parsing.families.registry import find_parser
from ollamad.wire import Message, Think, Tool

_HARMONY = "harmony"
_TAGS = ("<think>", "</think>")


class ChosenParser(NamedTuple):
    """``waits``: a format applies where the answer begins, not from the first token on."""

    parser: AnswerParser
    waits: bool


class ParserChoice:
    """The model's named parser, or those that its template calls for.

    ``named`` False: a raw prompt, whose answer only the template's parsers read. ``last``: what the
    conversation ends with; None for generate, whose conversation has no tools. ``tools`` and
    ``think`` are what the prompt has to be made with.
    """

    def __init__(
        self,
        model: KnownModel,
        think: Think | None,
        *,
        last: Message | None = None,
        named: bool = True,
        tools: Sequence[Tool] | None = None,
    ) -> None:
        name = model.parser
        if model.uses_harmony:
            name = name or _HARMONY
            think = "high" if think == "max" else think
        self._model = model
        self._harmony = name == _HARMONY
        self.think = think
        self.tools = tools
        self._named: AnswerParser | None = None
        self._waits = bool(tools)
        parser = find_parser(name) if name and named else None
        if parser is not None:
            self._named, renamed = named_parser(parser, tools or (), last, think)
            if tools is not None:
                self.tools = renamed
            # Harmony names its channels whatever is asked for; a grammar would forbid that.
            reasons = parser.has_thinking and think is not False
            self._waits = self._waits or reasons or self._harmony

    def parser(self, prompt: str) -> ChosenParser:
        """The parser of the answer to ``prompt``."""
        if self._named is not None:
            return ChosenParser(self._named, self._waits)
        parser = generic_parser(
            prompt,
            thinking_tags=_thinking_tags(self._model),
            think=self.think,
            tool_tag=self._model.template.tool_tag,
            tools=self.tools or (),
        )
        return ChosenParser(parser, not parser.is_plain)


def _thinking_tags(model: KnownModel) -> tuple[str, str]:
    """The tags around reasoning, both empty for none.

    Of a prompt that the chat template made, the answer is read here, too (generate): there the tags
    are the usual ones if the chat template counts as a thinking one (1.3).
    """
    if model.is_rendered or not model.chat_template:
        return model.template.thinking_tags
    return _TAGS if has_thinking(model.chat_template) else ("", "")
