"""What a running template works on, and what is known while it is compiled. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias

from ollamad.gotemplate.errors import TemplateRunError
from ollamad.gotemplate.functions import Function
from ollamad.gotemplate.quoting import quote

#: In place of the value of a variable that was not declared yet.
UNDECLARED: Any = object()


class Frame:
    """One execution of one template: where its text goes and what its variables hold."""

    __slots__ = ("depth", "run", "variables", "write")

    def __init__(
        self, run: Run, write: Callable[[str], None], variables: list[Any], depth: int
    ) -> None:
        self.run = run
        self.write = write
        self.variables = variables
        self.depth = depth


class Run:
    """One execution of a template and of all that it calls."""

    __slots__ = ("parts", "steps", "template")

    def __init__(self, template: Callable[[str], Body | None], steps: int) -> None:
        #: Finds a template by its name.
        self.template = template
        #: How many more rounds and calls there may be.
        self.steps = steps
        self.parts: list[str] = []


#: Gives a value, from the frame and the current dot.
Evaluate: TypeAlias = Callable[[Frame, Any], Any]
#: Writes; gives NORMAL, or how the iteration around it is left.
Execute: TypeAlias = Callable[[Frame, Any], int]
NORMAL, BREAK, CONTINUE = 0, 1, 2


class Body(NamedTuple):
    """A compiled template; ``slots``: how many variables it has, ``$`` is the first one."""

    execute: Execute
    slots: int


class Located(Protocol):
    """A node that errors can point at."""

    @property
    def position(self) -> int: ...


class Variable(NamedTuple):
    """``is_boxed``: it comes from a range, so that Go may know only that it is an interface.
    ``is_certain``: false when it is declared where evaluation may not get."""

    name: str
    slot: int
    is_boxed: bool
    is_certain: bool


class Unit:
    """One template while it is compiled: its names, and how its errors are located."""

    def __init__(self, text: str, name: str, functions: Mapping[str, Function]) -> None:
        self.functions = functions
        self.name = name
        self.slots = 1
        self.scope = [Variable("$", 0, is_boxed=False, is_certain=True)]
        #: Whether dot is an element of what a range goes over.
        self.dot_is_boxed = False
        #: How many parentheses are around what is being compiled.
        self.parentheses = 0
        self._text = text

    def declare(self, name: str, *, is_boxed: bool = False) -> Variable:
        variable = Variable(name, self.slots, is_boxed, not self.parentheses)
        self.slots += 1
        self.scope.append(variable)
        return variable

    def find(self, name: str) -> Variable | None:
        return next((known for known in reversed(self.scope) if known.name == name), None)

    def fail(self, node: Located, message: str) -> NoReturn:
        """Raises the error of ``node``; of a template that holds a tree of another text the place
        is where the node was there."""
        before = self._text[: node.position]
        line = before.count("\n") + 1
        column = len(before.rpartition("\n")[2].encode("utf-8", "surrogatepass"))
        raise TemplateRunError(
            f"template: :{line}:{column}: executing {quote(self.name)} at <{node}>: {message}"
        )

    def failing(self, node: Located, message: str) -> Evaluate:
        """What fails only when, and if, it is evaluated."""

        def evaluate(frame: Frame, dot: Any) -> Any:
            self.fail(node, message)

        return evaluate
