"""Templates that know no messages: executed once a turn, the last time only up to the response.

Pure. Source: prompting.md 3.6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ollamad.gotemplate.nodes import (
    ActionNode,
    BranchNode,
    CommandNode,
    FieldNode,
    ListNode,
    Node,
    Operand,
    PipeNode,
)
from ollamad.wire import Message


@dataclass(slots=True)
class Turn:
    """The values of one execution."""

    system: str = ""
    prompt: str = ""
    response: str = ""


def render_turns(messages: Sequence[Message], execute: Callable[[Turn, bool], str]) -> str:
    """The prompt of ``messages``; ``execute(turn, last)`` gives the text of one turn."""
    out: list[str] = []
    turn = Turn()
    for message in messages:
        if message.role == "system":
            if turn.prompt or turn.response:
                out.append(execute(turn, False))
                turn = Turn()
            turn.system = message.content
        elif message.role == "user":
            if turn.response:
                out.append(execute(turn, False))
                turn = Turn()
            turn.prompt = message.content
        elif message.role == "assistant":
            turn.response = message.content
    out.append(execute(turn, True))
    return "".join(out)


def cut_after_response(root: ListNode) -> ListNode:
    """A copy of the tree that ends with the first ``.Response`` that an action prints.

    Structures stay, with shortened bodies; without such an action nothing is removed.
    """
    return _Cutter().shortened(root)


class _Cutter:
    """Copies a tree in document order and leaves out what comes after the response."""

    def __init__(self) -> None:
        self._done = False

    def shortened(self, nodes: ListNode) -> ListNode:
        kept: list[Node] = []
        for node in nodes.nodes:
            if self._done:
                break
            if isinstance(node, ActionNode):
                pipe = self._pipe(node.pipe)
                if pipe is not None:
                    kept.append(replace(node, pipe=pipe))
            elif isinstance(node, BranchNode):
                body = self.shortened(node.body)
                otherwise = None if node.otherwise is None else self.shortened(node.otherwise)
                kept.append(replace(node, body=body, otherwise=otherwise))
            else:
                kept.append(node)
        return replace(nodes, nodes=kept)

    def _pipe(self, pipe: PipeNode) -> PipeNode | None:
        """None when the response goes into a further command: then the action is no use."""
        commands: list[CommandNode] = []
        for command in pipe.commands:
            if self._done:
                return None
            arguments: list[Operand] = []
            for argument in command.arguments:
                if self._done:
                    break
                kept = self._pipe(argument) if isinstance(argument, PipeNode) else argument
                if kept is None:
                    return None
                if isinstance(argument, FieldNode) and "Response" in argument.names:
                    self._done = True
                arguments.append(kept)
            commands.append(replace(command, arguments=arguments))
        return replace(pipe, commands=commands)
