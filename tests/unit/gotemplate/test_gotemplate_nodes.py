"""The tree: what leaves a node, and how it prints."""

import pytest

from ollamad.gotemplate import nodes
from ollamad.gotemplate.functions import BUILTINS
from ollamad.gotemplate.template import parse


def kinds(text: str) -> list[str]:
    return [type(node).__name__ for node in parse(text, BUILTINS).root.nodes]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" {{- 1 -}} \n", ["ActionNode"]),
        ("a{{/* c */}}b", ["TextNode", "TextNode"]),
        ("{{- /* c */ -}} ", []),
        ("  {{1}}", ["TextNode", "ActionNode"]),
        ('{{define "x"}}y{{end}}{{template "x" .}}', ["TemplateNode"]),
        ('{{block "x" .}}y{{end}}', ["TemplateNode"]),
        ("{{if 1}}{{end}}{{with 1}}{{end}}{{range 1}}{{end}}", ["IfNode", "WithNode", "RangeNode"]),
    ],
)
def test_what_leaves_a_node(text: str, expected: list[str]) -> None:
    assert kinds(text) == expected


def test_operands_have_the_nodes_of_the_original() -> None:
    text = "{{print .A.B $ $.C (.D).E . nil true 1 2.0 `s` len (len .F)}}"
    (action,) = parse(text, BUILTINS).root.nodes
    assert isinstance(action, nodes.ActionNode)
    (command,) = action.pipe.commands
    assert [type(operand).__name__ for operand in command.arguments] == [
        "IdentifierNode",
        "FieldNode",
        "VariableNode",
        "VariableNode",
        "ChainNode",
        "DotNode",
        "NilNode",
        "BoolNode",
        "NumberNode",
        "NumberNode",
        "StringNode",
        "IdentifierNode",
        "PipeNode",
    ]
    field, dollar, variable, chain = command.arguments[1:5]
    assert isinstance(field, nodes.FieldNode)
    assert field.names == ("A", "B")
    assert isinstance(dollar, nodes.VariableNode)
    assert dollar.names == ("$",)
    assert isinstance(variable, nodes.VariableNode)
    assert variable.names == ("$", "C")
    assert isinstance(chain, nodes.ChainNode)
    assert chain.names == ("E",)
    assert isinstance(chain.node, nodes.PipeNode)


def test_else_if_is_an_if_in_the_else_branch() -> None:
    (outer,) = parse("{{if 1}}a{{else if 2}}b{{else}}c{{end}}", BUILTINS).root.nodes
    assert isinstance(outer, nodes.IfNode)
    assert outer.otherwise is not None
    (inner,) = outer.otherwise.nodes
    assert isinstance(inner, nodes.IfNode)
    assert str(inner.otherwise) == "c"


def test_definitions_are_kept_apart_from_the_root() -> None:
    parsed = parse('x{{define "a"}}1{{end}}{{block "b" .}}2{{end}}', BUILTINS)
    assert {name: str(tree) for name, tree in parsed.definitions.items()} == {"a": "1", "b": "2"}
    assert str(parsed.root) == 'x{{template "b" .}}'


@pytest.mark.parametrize(
    "text",
    [
        "a {{.A.B}} {{$.C | print 1 `x`}}",
        "{{$x := 1}}{{$x = (print $x).y}}{{range $i, $e := .L}}{{break}}{{continue}}{{end}}",
        '{{if (len .A)}}b{{else}}{{with nil}}{{true}}{{end}}{{end}}{{template "t" "a\\n"}}',
        '{{template "t"}}',
    ],
)
def test_a_tree_prints_as_its_source(text: str) -> None:
    assert str(parse(text, BUILTINS).root) == text


def test_positions_are_those_of_the_original() -> None:
    (text, action, call) = parse('é {{ .A.B }}{{template "x" .}}', BUILTINS).root.nodes
    assert text.position == 0
    assert isinstance(action, nodes.ActionNode)
    assert action.pipe.commands[0].arguments[0].position == 7
    assert call.position == 23
