"""The tree of a parsed template, node for node as Go's parser builds it (prompting 2.2). Pure.

Which tags a template uses is inferred from the shape of this tree (prompting 7.1, 8.1): a text that
trimming emptied and a comment leave no node, but they separate the texts on both sides.

Every node has ``position``, the offset in characters in the template's text (as Go has it: of a
chain ``.A.B`` that of ``.B``), and prints as Go prints it in errors (``str(node)``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from ollamad.gotemplate.quoting import quote


@dataclass(eq=False, slots=True)
class TextNode:
    position: int
    text: str

    def __str__(self) -> str:
        return self.text


# --- operands -------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class FieldNode:
    """``.A.B``: ``names`` is ``("A", "B")``, never empty."""

    position: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join("." + name for name in self.names)


@dataclass(eq=False, slots=True)
class VariableNode:
    """``$x.A``: ``names`` is ``("$x", "A")``; ``$`` alone is ``("$",)``."""

    position: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


@dataclass(eq=False, slots=True)
class ChainNode:
    """``(pipeline).A.B`` or ``function.A``: fields of another operand."""

    position: int
    node: Operand
    names: tuple[str, ...]

    def __str__(self) -> str:
        return _operand_text(self.node) + "".join("." + name for name in self.names)


@dataclass(eq=False, slots=True)
class DotNode:
    position: int

    def __str__(self) -> str:
        return "."


@dataclass(eq=False, slots=True)
class NilNode:
    position: int

    def __str__(self) -> str:
        return "nil"


@dataclass(eq=False, slots=True)
class BoolNode:
    position: int
    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@dataclass(eq=False, slots=True)
class NumberNode:
    """``value``: an int, or a float when the constant looks like one; ``source`` as written."""

    position: int
    value: int | float
    source: str

    def __str__(self) -> str:
        return self.source


@dataclass(eq=False, slots=True)
class StringNode:
    """``value`` without quotes and escapes; ``source`` as written."""

    position: int
    value: str
    source: str

    def __str__(self) -> str:
        return self.source


@dataclass(eq=False, slots=True)
class IdentifierNode:
    """The name of a function."""

    position: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(eq=False, slots=True)
class CommandNode:
    """``arguments``: the operands, the first one is what is called; never empty."""

    position: int
    arguments: list[Operand] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join(_operand_text(argument) for argument in self.arguments)


@dataclass(eq=False, slots=True)
class PipeNode:
    """``declarations``: the variables before ``:=``, or before ``=`` when ``is_assignment``."""

    position: int
    commands: list[CommandNode] = field(default_factory=list)
    declarations: list[VariableNode] = field(default_factory=list)
    is_assignment: bool = False

    def __str__(self) -> str:
        commands = " | ".join(str(command) for command in self.commands)
        if not self.declarations:
            return commands
        names = ", ".join(str(variable) for variable in self.declarations)
        return f"{names} {'=' if self.is_assignment else ':='} {commands}"


Operand: TypeAlias = (
    FieldNode
    | VariableNode
    | ChainNode
    | DotNode
    | NilNode
    | BoolNode
    | NumberNode
    | StringNode
    | IdentifierNode
    | PipeNode
)


def _operand_text(node: Operand) -> str:
    return f"({node})" if isinstance(node, PipeNode) else str(node)


# --- what a list holds ----------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class ListNode:
    position: int
    nodes: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return "".join(str(node) for node in self.nodes)


@dataclass(eq=False, slots=True)
class ActionNode:
    position: int
    pipe: PipeNode

    def __str__(self) -> str:
        return "{{" + str(self.pipe) + "}}"


@dataclass(eq=False, slots=True)
class BranchNode:
    """What ``if``, ``range`` and ``with`` have in common. ``else if`` is an if in ``otherwise``."""

    keyword: ClassVar[str]

    position: int
    pipe: PipeNode
    body: ListNode
    otherwise: ListNode | None = None

    def __str__(self) -> str:
        otherwise = "" if self.otherwise is None else "{{else}}" + str(self.otherwise)
        return f"{{{{{self.keyword} {self.pipe}}}}}{self.body}{otherwise}{{{{end}}}}"


@dataclass(eq=False, slots=True)
class IfNode(BranchNode):
    keyword: ClassVar[str] = "if"


@dataclass(eq=False, slots=True)
class RangeNode(BranchNode):
    keyword: ClassVar[str] = "range"


@dataclass(eq=False, slots=True)
class WithNode(BranchNode):
    keyword: ClassVar[str] = "with"


@dataclass(eq=False, slots=True)
class TemplateNode:
    """``{{template "name" pipe}}``; also what a ``block`` leaves where it stands."""

    position: int
    name: str
    pipe: PipeNode | None

    def __str__(self) -> str:
        pipe = "" if self.pipe is None else f" {self.pipe}"
        return f"{{{{template {quote(self.name)}{pipe}}}}}"


@dataclass(eq=False, slots=True)
class BreakNode:
    position: int

    def __str__(self) -> str:
        return "{{break}}"


@dataclass(eq=False, slots=True)
class ContinueNode:
    position: int

    def __str__(self) -> str:
        return "{{continue}}"


Node: TypeAlias = (
    TextNode | ActionNode | IfNode | RangeNode | WithNode | TemplateNode | BreakNode | ContinueNode
)
