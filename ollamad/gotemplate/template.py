"""From a template's text to a tree that others may read and cut, and that runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ollamad.gotemplate.functions import BUILTINS, Function
from ollamad.gotemplate.nodes import ListNode
from ollamad.gotemplate.parser import parse_text
from ollamad.gotemplate.program import Program


class Parsed:
    """The tree of a template, ``root``, and those of the templates that it defines.

    A tree is compiled when it runs for the first time; change it before, or not at all.
    """

    def __init__(
        self,
        text: str,
        functions: Mapping[str, Function],
        root: ListNode,
        definitions: dict[str, ListNode],
    ) -> None:
        self.root = root
        self.definitions = definitions
        self._text = text
        self._functions = functions
        self._programs: dict[ListNode, Program] = {}

    def execute(self, data: Any, root: ListNode | None = None) -> str:
        """The text for ``data``, which is a dict as a rule; ``root``: another tree to run.

        Every ``root`` is kept with what it was compiled to, so give the same one again. Raises
        TemplateRunError.
        """
        tree = self.root if root is None else root
        program = self._programs.get(tree)
        if program is None:
            program = Program(self._text, self._functions, tree, self.definitions)
            self._programs[tree] = program
        return program.execute(data)


def parse(text: str, functions: Mapping[str, Function]) -> Parsed:
    """``text`` as a template that may call the language's functions and ``functions``.

    Raises TemplateSyntaxError, whose text is ``template: :LINE: MESSAGE``.
    """
    known = {**BUILTINS, **functions}
    root, definitions = parse_text(text, known)
    return Parsed(text, known, root, definitions)
