"""The ATEM block of a Glimmer call. Pure. Source: renderers-and-parsers.md 3.16."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ollamad.parsing.declared import find_tool
from ollamad.parsing.values import coerce, property_types
from ollamad.wire import Tool

BLOCK, BLOCK_END = "<atem:function_calls>", "</atem:function_calls>"
_INVOKE = re.compile(r'\s*<atem:invoke name="(?P<name>[^"]*)">')
_INVOKE_END = "</atem:invoke>"
_PARAMETER = re.compile(r'\s*<atem:parameter name="(?P<name>[^"]*)">')
_PARAMETER_END = "</atem:parameter>"
#: Models write it at the end of the invoked name.
_MESSAGE = "<|message|>"


class Invocation(NamedTuple):
    """``name`` as the model wrote it; ``parameters`` are still text."""

    name: str
    parameters: list[tuple[str, str]]


def read_block(text: str) -> Invocation:
    """The call in ``text``, which begins with ``BLOCK`` and ends with ``BLOCK_END``.

    Raises ValueError with the reference's reason if it is not exactly one well-formed call.
    """
    body = text.removeprefix(BLOCK).removesuffix(BLOCK_END).strip()
    if not body.startswith("<atem:invoke") or not body.endswith(_INVOKE_END):
        raise ValueError("missing ATEM invoke wrapper")
    invoke = _INVOKE.match(body)
    name = invoke["name"].replace(_MESSAGE, "").strip() if invoke else ""
    if invoke is None or not name:
        raise ValueError("malformed ATEM invoke name")
    parameters: list[tuple[str, str]] = []
    at, last = invoke.end(), len(body) - len(_INVOKE_END)
    while body[at:last].strip():
        opening = _PARAMETER.match(body, at, last)
        if opening is None:
            raise ValueError("malformed ATEM parameter")
        end = body.find(_PARAMETER_END, opening.end(), last)
        if end < 0:
            raise ValueError(f'unterminated ATEM parameter "{opening["name"]}"')
        if not opening["name"]:
            raise ValueError("malformed ATEM parameter name")
        if any(name == opening["name"] for name, _ in parameters):
            raise ValueError(f'repeated ATEM parameter "{opening["name"]}"')
        parameters.append((opening["name"], body[opening.end() : end]))
        at = end + len(_PARAMETER_END)
    return Invocation(name, parameters)


def arguments_of(invocation: Invocation, tool: str, tools: Sequence[Tool]) -> dict[str, Any]:
    """The values of ``invocation``'s parameters as ``tool`` declares them."""
    return {
        name: coerce(text, property_types(tools, tool, name), keep_line_ends=True)
        for name, text in invocation.parameters
    }


def addressed_tool(recipient: str, tools: Sequence[Tool]) -> str | None:
    """The declared tool that ``recipient`` names: by its name, or by its namespace and its name."""
    if find_tool(tools, recipient):
        return recipient
    namespace, _, name = recipient.partition(".")
    own = name.partition(".")[0]
    return name if name and own == namespace and find_tool(tools, name) else None
