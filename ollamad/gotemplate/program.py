"""Lists and control structures: compiled to what writes their text (prompting 2.3). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ollamad.gotemplate import nodes
from ollamad.gotemplate.errors import TemplateRunError
from ollamad.gotemplate.frame import (
    BREAK,
    CONTINUE,
    NORMAL,
    UNDECLARED,
    Body,
    Execute,
    Frame,
    Located,
    Run,
    Unit,
)
from ollamad.gotemplate.functions import Function
from ollamad.gotemplate.pipelines import last_visited, pipeline
from ollamad.gotemplate.quoting import quote
from ollamad.gotemplate.values import final_text, is_int, is_true, printed, shown

#: How deep templates may call each other, how many rounds and calls there may be, and how long the
#: text may become (in characters): whoever wrote a template must not stop the daemon with it.
MAX_DEPTH = 100
MAX_STEPS = 1_000_000
STEPS_OF_A_CALL = 10
MAX_OUTPUT = 256 * 1024 * 1024


class Program:
    """A template and those that it defines, ready to run any number of times."""

    def __init__(
        self,
        text: str,
        functions: Mapping[str, Function],
        root: nodes.ListNode,
        definitions: Mapping[str, nodes.ListNode],
    ) -> None:
        self._text = text
        self._functions = functions
        self._trees = {**definitions, "": root}
        self._bodies: dict[str, Body] = {}

    def execute(self, data: Any) -> str:
        """The text for ``data``; raises TemplateRunError."""
        run = Run(self._body, MAX_STEPS)
        try:
            body = self._body("")
            assert body is not None
            variables = [UNDECLARED] * body.slots
            variables[0] = data
            body.execute(Frame(run, run.parts.append, variables, 0), data)
            if sum(map(len, run.parts)) > MAX_OUTPUT:
                raise TemplateRunError('template: :1:0: executing "": text too long')
            return final_text("".join(run.parts))
        except RecursionError:
            raise TemplateRunError('template: :1:0: executing "": nested too deeply') from None

    def _body(self, name: str) -> Body | None:
        body = self._bodies.get(name)
        tree = self._trees.get(name)
        if body is None and tree is not None:
            unit = Unit(self._text, name, self._functions)
            execute = _list(unit, tree)
            body = self._bodies[name] = Body(execute, unit.slots)
        return body


def _list(unit: Unit, tree: nodes.ListNode | None) -> Execute:
    steps = [] if tree is None else [_node(unit, node) for node in tree.nodes]
    if len(steps) == 1:
        return steps[0]
    all_steps = tuple(steps)

    def execute(frame: Frame, dot: Any) -> int:
        for step in all_steps:
            leaving = step(frame, dot)
            if leaving:
                return leaving
        return NORMAL

    return execute


def _node(unit: Unit, node: nodes.Node) -> Execute:
    match node:
        case nodes.TextNode():
            return _text(node.text)
        case nodes.ActionNode():
            return _action(unit, node)
        case nodes.IfNode() | nodes.WithNode():
            return _condition(unit, node)
        case nodes.RangeNode():
            return _range(unit, node)
        case nodes.TemplateNode():
            return _template(unit, node)
        case nodes.BreakNode():
            return lambda frame, dot: BREAK
        case nodes.ContinueNode():
            return lambda frame, dot: CONTINUE


def _text(text: str) -> Execute:
    def execute(frame: Frame, dot: Any) -> int:
        frame.write(text)
        return NORMAL

    return execute


def _action(unit: Unit, node: nodes.ActionNode) -> Execute:
    evaluate = pipeline(unit, node.pipe)
    if node.pipe.declarations:

        def assign(frame: Frame, dot: Any) -> int:
            evaluate(frame, dot)
            return NORMAL

        return assign

    def execute(frame: Frame, dot: Any) -> int:
        value = evaluate(frame, dot)
        frame.write(value if type(value) is str else printed(value))
        return NORMAL

    return execute


def _condition(unit: Unit, node: nodes.IfNode | nodes.WithNode) -> Execute:
    scope = len(unit.scope)
    evaluate = pipeline(unit, node.pipe)
    is_with = isinstance(node, nodes.WithNode)
    outer_is_boxed = unit.dot_is_boxed
    unit.dot_is_boxed = outer_is_boxed and not is_with
    body = _list(unit, node.body)
    unit.dot_is_boxed = outer_is_boxed
    otherwise = _list(unit, node.otherwise)
    del unit.scope[scope:]

    def execute_with(frame: Frame, dot: Any) -> int:
        value = evaluate(frame, dot)
        return body(frame, value) if is_true(value) else otherwise(frame, dot)

    def execute_if(frame: Frame, dot: Any) -> int:
        return (body if is_true(evaluate(frame, dot)) else otherwise)(frame, dot)

    return execute_with if is_with else execute_if


def _range(unit: Unit, node: nodes.RangeNode) -> Execute:
    scope = len(unit.scope)
    evaluate = pipeline(unit, node.pipe, is_range=True)
    declared = [unit.find(variable.names[0]) for variable in node.pipe.declarations]
    slots = [variable.slot for variable in declared if variable is not None]
    outer_is_boxed, unit.dot_is_boxed = unit.dot_is_boxed, True
    body = _list(unit, node.body)
    unit.dot_is_boxed = outer_is_boxed
    otherwise = _list(unit, node.otherwise)
    del unit.scope[scope:]
    item_slot = slots[-1] if slots else None
    index_slot = slots[0] if len(slots) > 1 else None

    def execute(frame: Frame, dot: Any) -> int:
        pairs = _pairs(unit, node, frame, evaluate(frame, dot))
        is_empty = True
        variables = frame.variables
        for index, item in pairs:
            is_empty = False
            if item_slot is not None:
                variables[item_slot] = item
                if index_slot is not None:
                    variables[index_slot] = index
            if body(frame, item) == BREAK:
                break
        return otherwise(frame, dot) if is_empty else NORMAL

    return execute


def _pairs(
    unit: Unit, node: nodes.RangeNode, frame: Frame, value: Any
) -> Iterable[tuple[Any, Any]]:
    """Indexes or keys and elements of ``value``, in the order of the iteration."""
    if value is None:
        return ()
    blamed = last_visited(node.pipe)
    if isinstance(value, list | tuple | dict):
        _count(unit, blamed, frame.run, len(value))
        if isinstance(value, dict):
            return [(key, value[key]) for key in sorted(value)]
        return enumerate(value)
    if not is_int(value):
        unit.fail(blamed, f"range can't iterate over {shown(value)}")
    if len(node.pipe.declarations) > 1:
        unit.fail(blamed, f"can't use {value} to iterate over more than one variable")
    return _counted(unit, blamed, frame.run, value)


def _counted(unit: Unit, blamed: Located, run: Run, limit: int) -> Iterator[tuple[int, int]]:
    for number in range(limit):
        _count(unit, blamed, run, 1)
        yield number, number


def _count(unit: Unit, blamed: Located, run: Run, steps: int) -> None:
    run.steps -= steps
    if run.steps < 0:
        unit.fail(blamed, f"more than {MAX_STEPS} steps")


def _template(unit: Unit, node: nodes.TemplateNode) -> Execute:
    evaluate = (lambda frame, dot: None) if node.pipe is None else pipeline(unit, node.pipe)

    def execute(frame: Frame, dot: Any) -> int:
        body = frame.run.template(node.name)
        if body is None:
            unit.fail(node, f"template {quote(node.name)} not defined")
        if frame.depth >= MAX_DEPTH:
            unit.fail(node, f"exceeded maximum template depth ({MAX_DEPTH})")
        _count(unit, node, frame.run, STEPS_OF_A_CALL)
        value = evaluate(frame, dot)
        variables = [UNDECLARED] * body.slots
        variables[0] = value
        body.execute(Frame(frame.run, frame.write, variables, frame.depth + 1), value)
        return NORMAL

    return execute
