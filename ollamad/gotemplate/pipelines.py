"""Operands, commands and pipelines: compiled to what evaluates them (prompting 2.3). Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from ollamad.gotemplate import nodes
from ollamad.gotemplate.errors import CallError
from ollamad.gotemplate.fields import chain, held_in_a_box
from ollamad.gotemplate.frame import UNDECLARED, Evaluate, Frame, Located, Unit, Variable
from ollamad.gotemplate.functions import BOXED, Function
from ollamad.gotemplate.numbers import INT_MAX
from ollamad.gotemplate.values import is_true, type_name

#: A command that gets the value of the one before it.
Piped: TypeAlias = Callable[[Frame, Any, Any], Any]


def pipeline(unit: Unit, pipe: nodes.PipeNode, *, is_range: bool = False) -> Evaluate:
    """Evaluates ``pipe``, and sets its variables to the value.

    With ``is_range`` the variables get the elements later, which are boxed for Go; the first of two
    gets the index or the key, which is not.
    """
    evaluate = _commands(unit, pipe)
    slots: list[int] = []
    elements = pipe.declarations[-1:] if is_range else []
    for declared in pipe.declarations:
        name = declared.names[0]
        boxed = declared in elements
        found = unit.find(name) if pipe.is_assignment else unit.declare(name, is_boxed=boxed)
        if found is None:
            return _undeclared(unit, evaluate, last_visited(pipe), name)
        slots.append(found.slot)
        if pipe.is_assignment and not found.is_certain:
            evaluate = _declared_first(unit, evaluate, last_visited(pipe), found)
    if not slots:
        return evaluate

    def assign(frame: Frame, dot: Any) -> Any:
        value = evaluate(frame, dot)
        for slot in slots:
            frame.variables[slot] = value
        return value

    return assign


def _undeclared(unit: Unit, evaluate: Evaluate, node: Located, name: str) -> Evaluate:
    def fail(frame: Frame, dot: Any) -> Any:
        evaluate(frame, dot)
        unit.fail(node, f"undefined variable: {name}")

    return fail


def _declared_first(unit: Unit, evaluate: Evaluate, node: Located, variable: Variable) -> Evaluate:
    def check(frame: Frame, dot: Any) -> Any:
        value = evaluate(frame, dot)
        if frame.variables[variable.slot] is UNDECLARED:
            unit.fail(node, f"undefined variable: {variable.name}")
        return value

    return check


def _commands(unit: Unit, pipe: nodes.PipeNode) -> Evaluate:
    first = _first_command(unit, pipe.commands[0], pipe)
    if len(pipe.commands) == 1:
        return first
    before = pipe.commands[0]
    later: list[Piped] = []
    for command in pipe.commands[1:]:
        later.append(_piped_command(unit, command, before))
        before = command

    def evaluate(frame: Frame, dot: Any) -> Any:
        value = first(frame, dot)
        for step in later:
            value = step(frame, dot, value)
        return value

    return evaluate


def last_visited(node: nodes.PipeNode | nodes.CommandNode | nodes.Operand) -> Located:
    """The node that Go blames for what goes wrong with the value of ``node`` afterwards."""
    if isinstance(node, nodes.PipeNode):
        return last_visited(node.commands[-1])
    if isinstance(node, nodes.CommandNode):
        is_call = isinstance(node.arguments[0], nodes.IdentifierNode)
        return last_visited(node.arguments[-1 if is_call else 0])
    return last_visited(node.node) if isinstance(node, nodes.ChainNode) else node


# --- commands -------------------------------------------------------------------------------------


def _first_command(unit: Unit, command: nodes.CommandNode, pipe: nodes.PipeNode) -> Evaluate:
    first, arguments = command.arguments[0], command.arguments[1:]
    if isinstance(first, nodes.IdentifierNode):
        return _call(unit, first, command, arguments)
    if isinstance(first, nodes.NilNode):
        return unit.failing(first, _misplaced(first) if arguments else "nil is not a command")
    if isinstance(first, nodes.PipeNode) and arguments:
        return unit.failing(pipe, _misplaced(first))
    return operand(unit, first, has_arguments=bool(arguments))


def _piped_command(unit: Unit, command: nodes.CommandNode, before: nodes.CommandNode) -> Piped:
    first, arguments = command.arguments[0], command.arguments[1:]
    if isinstance(first, nodes.IdentifierNode):
        return _piped_call(unit, first, command, arguments, last_visited(before))
    if isinstance(first, nodes.PipeNode):
        evaluate = unit.failing(last_visited(before), _misplaced(first))
    else:
        evaluate = operand(unit, first, has_arguments=True)
    return lambda frame, dot, value: evaluate(frame, dot)


def _misplaced(first: nodes.Operand) -> str:
    return f"can't give argument to non-function {first}"


def operand(unit: Unit, node: nodes.Operand, *, has_arguments: bool = False) -> Evaluate:
    """Evaluates one operand; ``has_arguments``: it stands where a function is called."""
    match node:
        case nodes.FieldNode(names=names):
            boxed = unit.dot_is_boxed
            return chain(unit, None, names, node, is_boxed=boxed, has_arguments=has_arguments)
        case nodes.VariableNode(names=names):
            return _variable(unit, node, has_arguments)
        case nodes.ChainNode(names=names, node=inner):
            if isinstance(inner, nodes.NilNode):
                return unit.failing(node, f"indirection through explicit nil in {node}")
            start, blamed = operand(unit, inner), last_visited(inner)
            return chain(unit, start, names, blamed, is_boxed=False, has_arguments=has_arguments)
        case nodes.IdentifierNode():
            return _call(unit, node, node, [])
    if has_arguments:
        return unit.failing(node, _misplaced(node))
    match node:
        case nodes.PipeNode():
            unit.parentheses += 1
            evaluate = pipeline(unit, node)
            unit.parentheses -= 1
            return evaluate
        case nodes.DotNode():
            return lambda frame, dot: dot
        case nodes.NilNode():
            return lambda frame, dot: None
        case nodes.NumberNode(value=number) if isinstance(number, int) and number > INT_MAX:
            return unit.failing(node, f"{node.source} overflows int")
    constant = node.value
    return lambda frame, dot: constant


def _variable(unit: Unit, node: nodes.VariableNode, has_arguments: bool) -> Evaluate:
    name, names = node.names[0], node.names[1:]
    variable = unit.find(name)
    if variable is None:
        return unit.failing(node, f"undefined variable: {name}")
    slot = variable.slot

    def read(frame: Frame, dot: Any) -> Any:
        return frame.variables[slot]

    def read_uncertain(frame: Frame, dot: Any) -> Any:
        if frame.variables[slot] is UNDECLARED:
            unit.fail(node, f"undefined variable: {name}")
        return frame.variables[slot]

    start = read if variable.is_certain else read_uncertain
    if names:
        boxed = variable.is_boxed
        return chain(unit, start, names, node, is_boxed=boxed, has_arguments=has_arguments)
    return unit.failing(node, _misplaced(node)) if has_arguments else start


# --- calls ----------------------------------------------------------------------------------------


def _arity(function: Function, name: str, count: int) -> str:
    """What is wrong with this number of arguments, if anything."""
    if function.at_most is None:
        if count >= function.at_least:
            return ""
        return f"wrong number of args for {name}: want at least {function.at_least} got {count}"
    if function.at_least <= count <= function.at_most:
        return ""
    return f"wrong number of args for {name}: want {function.at_least} got {count}"


def _call(
    unit: Unit,
    identifier: nodes.IdentifierNode,
    blamed: Located,
    arguments: list[nodes.Operand],
) -> Evaluate:
    name, function = identifier.name, unit.functions[identifier.name]
    wrong = _arity(function, name, len(arguments))
    if wrong:
        return unit.failing(identifier, wrong)
    values = _arguments(unit, function, arguments)
    if name in ("and", "or"):
        return _until_decided(values, name == "or")
    if name == "call":
        source = str(arguments[0])

        def refuse(frame: Frame, dot: Any) -> Any:
            _no_function(unit, blamed, source, [value(frame, dot) for value in values][0])  # noqa: RUF015 - all are evaluated

        return refuse
    call = function.call
    if len(values) == 1:
        only = values[0]

        def call_with_one(frame: Frame, dot: Any) -> Any:
            value = only(frame, dot)
            try:
                return call(value)
            except CallError as error:
                unit.fail(blamed, f"error calling {name}: {error}")

        return call_with_one
    if len(values) == 2:
        left, right = values

        def call_with_two(frame: Frame, dot: Any) -> Any:
            first, second = left(frame, dot), right(frame, dot)
            try:
                return call(first, second)
            except CallError as error:
                unit.fail(blamed, f"error calling {name}: {error}")

        return call_with_two

    def call_with_all(frame: Frame, dot: Any) -> Any:
        given = [value(frame, dot) for value in values]
        try:
            return call(*given)
        except CallError as error:
            unit.fail(blamed, f"error calling {name}: {error}")

    return call_with_all


def _until_decided(values: list[Evaluate], decides: bool) -> Evaluate:
    def evaluate(frame: Frame, dot: Any) -> Any:
        found = None
        for value in values:
            found = value(frame, dot)
            if is_true(found) is decides:
                break
        return found

    return evaluate


def _no_function(unit: Unit, blamed: Located, source: str, value: Any) -> NoReturn:
    """``call``: templates of models have no values that are functions."""
    reason = f"non-function {source} of type {type_name(value)}"
    unit.fail(blamed, f"error calling call: {'call of nil' if value is None else reason}")


def _piped_call(
    unit: Unit,
    identifier: nodes.IdentifierNode,
    blamed: Located,
    arguments: list[nodes.Operand],
    before: Located,
) -> Piped:
    name, function = identifier.name, unit.functions[identifier.name]
    wrong = _arity(function, name, len(arguments) + 1)
    if wrong:
        failing = unit.failing(identifier, wrong)
        return lambda frame, dot, value: failing(frame, dot)
    values = _arguments(unit, function, arguments)
    if name in ("and", "or"):
        decides = name == "or"

        def decide(frame: Frame, dot: Any, final: Any) -> Any:
            for value in values:
                found = value(frame, dot)
                if is_true(found) is decides:
                    return found
            return final

        return decide
    must_be_text = len(arguments) < function.texts
    last = last_visited(arguments[-1]) if arguments else identifier
    source = str(arguments[0] if arguments else before)

    def call(frame: Frame, dot: Any, final: Any) -> Any:
        given = [value(frame, dot) for value in values]
        if must_be_text and not isinstance(final, str):
            unit.fail(last, _wrong_type(final, is_boxed=False))
        if name == "call":
            _no_function(unit, blamed, source, [*given, final][0])
        try:
            return function.call(*given, final)
        except CallError as error:
            unit.fail(blamed, f"error calling {name}: {error}")

    return call


def _arguments(unit: Unit, function: Function, arguments: list[nodes.Operand]) -> list[Evaluate]:
    return [
        _text_argument(unit, argument)
        if place < function.texts
        else _boxed_argument(unit, argument)
        if place >= function.boxed_from
        else operand(unit, argument)
        for place, argument in enumerate(arguments)
    ]


def _wrong_type(value: Any, *, is_boxed: bool) -> str:
    if value is None and not is_boxed:
        return "invalid value; expected string"
    kind = "interface {}" if value is None else type_name(value)
    return f"wrong type for value; expected string; got {kind}"


def _text_argument(unit: Unit, node: nodes.Operand) -> Evaluate:
    match node:
        case nodes.StringNode():
            return operand(unit, node)
        case nodes.NilNode():
            return unit.failing(node, "cannot assign nil to string")
        case nodes.NumberNode() | nodes.BoolNode():
            return unit.failing(node, f"expected string; found {node}")
    evaluate, is_boxed = operand(unit, node), _is_boxed(unit, node)

    def check(frame: Frame, dot: Any) -> Any:
        value = evaluate(frame, dot)
        if not isinstance(value, str):
            unit.fail(last_visited(node), _wrong_type(value, is_boxed=is_boxed(frame, dot)))
        return value

    return check


def _is_boxed(unit: Unit, node: nodes.Operand) -> Evaluate:
    """Whether the value of ``node`` is an ``interface {}`` for Go."""
    match node:
        case nodes.DotNode():
            return held_in_a_box(None, (), is_boxed=unit.dot_is_boxed)
        case nodes.FieldNode(names=names):
            return held_in_a_box(None, names, is_boxed=unit.dot_is_boxed)
        case nodes.VariableNode(names=(name, *names)):
            variable = unit.find(name)
            if variable is not None:
                start = _variable(unit, nodes.VariableNode(node.position, (name,)), False)
                return held_in_a_box(start, tuple(names), is_boxed=variable.is_boxed)
        case nodes.ChainNode(names=names, node=inner):
            return held_in_a_box(operand(unit, inner), names, is_boxed=False)
    return lambda frame, dot: False


def _boxed_argument(unit: Unit, node: nodes.Operand) -> Evaluate:
    evaluate, is_boxed = operand(unit, node), _is_boxed(unit, node)

    def hide(frame: Frame, dot: Any) -> Any:
        value = evaluate(frame, dot)
        return BOXED if is_boxed(frame, dot) else value

    return hide
