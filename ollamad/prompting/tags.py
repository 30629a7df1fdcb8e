"""What a template's tree tells about it: the data it asks for, and the tags around reasoning and
tool calls. Pure.

Source: prompting.md 3.2, 7.1 and 8.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ollamad.gotemplate.nodes import (
    ActionNode,
    BranchNode,
    FieldNode,
    IfNode,
    ListNode,
    PipeNode,
    RangeNode,
    TemplateNode,
    TextNode,
    VariableNode,
)

#: The tool tag of a template that has none of its own.
NO_TAG = "{"


def variables(roots: Iterable[ListNode]) -> frozenset[str]:
    """The lower-cased names of all fields and variables in these trees, each part of a chain.

    Names that are declared do not count, nor what stands in parentheses followed by a field.
    """
    return frozenset(
        name.lower()
        for root in roots
        for pipe in _pipes(root)
        for operand in _operands(pipe)
        for name in operand.names
    )


def calls_without_data(roots: Iterable[ListNode]) -> bool:
    """Whether a template is called without a pipeline: ``{{ template "x" }}``."""
    return any(_has_bare_call(root) for root in roots)


def _has_bare_call(nodes: ListNode) -> bool:
    for node in nodes.nodes:
        if isinstance(node, TemplateNode) and node.pipe is None:
            return True
        if isinstance(node, BranchNode) and any(map(_has_bare_call, _lists(node))):
            return True
    return False


def thinking_tags(root: ListNode) -> tuple[str, str]:
    """The texts before and after ``.Thinking`` of a message; "" where there is none."""
    tags = ["", ""]
    _find_thinking(root, None, tags)
    return tags[0], tags[1]


def _find_thinking(nodes: ListNode, loop: RangeNode | None, tags: list[str]) -> None:
    """Walk ``nodes``, whose nearest range is ``loop``, and note the tags; the last ones count."""
    for node in nodes.nodes:
        inner = node if isinstance(node, RangeNode) else loop
        if (
            isinstance(node, ActionNode | BranchNode | TemplateNode)
            and node.pipe is not None
            and _mentions(node.pipe, "Thinking")
            and inner is not None
            and _mentions(inner.pipe, "Messages")
        ):
            for place, end in enumerate((nodes.nodes[0], nodes.nodes[-1])):
                if isinstance(end, TextNode):
                    tags[place] = end.text.strip()
        if isinstance(node, BranchNode):
            for nested in _lists(node):
                _find_thinking(nested, inner, tags)


def _mentions(pipe: PipeNode, name: str) -> bool:
    """Whether ``.name``, or a chain that begins with it, is an operand anywhere in ``pipe``."""
    return any(isinstance(o, FieldNode) and o.names[0] == name for o in _operands(pipe))


def tool_tag(root: ListNode) -> str:
    """The text that a template puts before the tool calls of a message; ``{`` if there is none."""
    branch = _tool_branch(root)
    text = _first_text(branch.body) if branch is not None else None
    tag = (text or "").replace("\r\n", "\n").partition("{")[0].strip()
    return tag or NO_TAG


def _tool_branch(nodes: ListNode) -> IfNode | None:
    for node in nodes.nodes:
        if isinstance(node, IfNode) and any(
            isinstance(operand, FieldNode) and "ToolCalls" in operand.names
            for command in node.pipe.commands
            for operand in command.arguments
        ):
            return node
        if isinstance(node, BranchNode):
            for nested in _lists(node):
                found = _tool_branch(nested)
                if found is not None:
                    return found
    return None


def _first_text(nodes: ListNode) -> str | None:
    """The first text that is not blank; none if something that prints comes first, or in the first
    branch there is none."""
    for node in nodes.nodes:
        if isinstance(node, TextNode) and node.text.strip():
            return node.text
        if isinstance(node, ActionNode):
            return None
        if isinstance(node, BranchNode):
            return next(filter(None, map(_first_text, _lists(node))), None)
    return None


def _lists(branch: BranchNode) -> list[ListNode]:
    return [branch.body] if branch.otherwise is None else [branch.body, branch.otherwise]


def _pipes(nodes: ListNode) -> Iterator[PipeNode]:
    """All pipelines in document order, headers before bodies."""
    for node in nodes.nodes:
        if isinstance(node, ActionNode | BranchNode | TemplateNode) and node.pipe is not None:
            yield node.pipe
        if isinstance(node, BranchNode):
            for nested in _lists(node):
                yield from _pipes(nested)


def _operands(pipe: PipeNode) -> Iterator[FieldNode | VariableNode]:
    for command in pipe.commands:
        for argument in command.arguments:
            if isinstance(argument, FieldNode | VariableNode):
                yield argument
            elif isinstance(argument, PipeNode):
                yield from _operands(argument)
