"""Which texts are no templates, which templates fail, and how it is said."""

import pytest
from gotemplate_samples import run

from ollamad.gotemplate.errors import TemplateRunError, TemplateSyntaxError
from ollamad.gotemplate.functions import BUILTINS
from ollamad.gotemplate.template import parse

SYNTAX = [
    ("{{ .s", "unclosed action"),
    ("{{ .", 'illegal number syntax: "."'),
    ("{{ if .t }}x", "unexpected EOF"),
    ("{{ end }}", "unexpected {{end}}"),
    ("{{ else }}", "unexpected {{else}}"),
    ("{{ }}", "missing value for command"),
    ("{{ foo }}", 'function "foo" not defined'),
    ("{{ $x }}", 'undefined variable "$x"'),
    ("{{ if $y := .i }}{{ $y }}{{ end }}{{ $y }}", 'undefined variable "$y"'),
    ("{{ break }}", "{{break}} outside {{range}}"),
    ("{{ continue }}", "{{continue}} outside {{range}}"),
    ('{{range .l}}{{block "b" .}}{{break}}{{end}}{{end}}', "{{break}} outside {{range}}"),
    ("{{ $a, $b := .l }}", "too many declarations in command"),
    ("{{ range $a, $b, $c := .l }}{{end}}", "too many declarations in range"),
    ("{{ range $a, 3 }}{{end}}", "range can only initialize variables"),
    ("{{ .s # }}", 'unexpected "#" in operand'),
    ("{{ € }}", "unrecognized character in action: U+20AC '€'"),
    ("{{ ( .s }}", "unclosed left paren"),
    ("{{ .s ) }}", "unexpected right paren"),
    ('{{ "abc }}', "unterminated quoted string"),
    ('{{ "a\nb" }}', "unterminated quoted string"),
    ("{{ `abc }}", "unterminated raw quoted string"),
    ("{{ 'a }}", "unterminated character constant"),
    ("{{ 'ab' }}", "malformed character constant: 'ab'"),
    (r'{{ "\q" }}', "invalid syntax"),
    (r'{{ "\400" }}', "invalid syntax"),
    (r'{{ "\ud800" }}', "invalid syntax"),
    ("{{1 | 2}}", "non executable command in pipeline stage 2"),
    ("{{.s | print | .}}", "non executable command in pipeline stage 3"),
    ("{{ /* c */ }}", 'unexpected "/" in command'),
    ("{{/* c }}", "unclosed comment"),
    ("{{/* c */ x}}", "comment ends before closing delimiter"),
    ("{{1a}}", 'bad number syntax: "1a"'),
    ("{{--}}", 'bad number syntax: "--"'),
    ("{{-}}", 'illegal number syntax: "-"'),
    ("{{99999999999999999999}}", 'integer overflow: "99999999999999999999"'),
    ("{{1e999}}", 'illegal number syntax: "1e999"'),
    ("{{ : }}", "expected :="),
    ("{{.s#}}", "bad character U+0023 '#'"),
    ("{{$x=1}}", "bad character U+003D '='"),
    ("{{ . s }}", 'function "s" not defined'),
    ("{{..}}", "unexpected <.> in operand"),
    ("{{.s.}}", "unexpected <.> in operand"),
    ("{{true.a}}", 'unexpected . after term "true"'),
    ("{{if .t}}a{{else}}b{{else}}c{{end}}", "expected end; found {{else}}"),
    ("{{range .l}}{{else if .t}}{{end}}", "unexpected <if> in input"),
    ("{{if .t}}{{define `x`}}{{end}}{{end}}", "unexpected <define> in command"),
    ("{{define x}}{{end}}", 'unexpected "x" in define clause'),
    ("{{template}}", 'unexpected "}}" in template clause'),
    ("{{end something}}", 'unexpected "something" in end'),
    ("{{.s somethinglonger :}}", 'function "somethinglonger" not defined'),
    (
        '{{define "averyveryverylong" "averyveryverylong"}}',
        'unexpected "\\"averyvery"... in define clause',
    ),
    (
        '{{define "x"}}a{{end}}{{define "x"}}b{{end}}',
        'template: multiple definition of template "x"',
    ),
    ('{{define ""}}x{{end}}y', 'template: multiple definition of template ""'),
]


@pytest.mark.parametrize(("template", "message"), SYNTAX)
def test_what_is_no_template(template: str, message: str) -> None:
    with pytest.raises(TemplateSyntaxError) as error:
        run(template)
    assert str(error.value) == f"template: :1: {message}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a\nb\n{{ foo }}", 'template: :3: function "foo" not defined'),
        ("{{\n.s", "template: :2: unclosed action started at :1"),
        ("{{ .s\n€ }}", "template: :2: unrecognized character in action: U+20AC '€' in action"
         " started at :1"),
        ("{{if .t}}\n\nx", "template: :3: unexpected EOF"),
        ('\n{{define "x"}}\n{{end}}\n{{end}}', "template: :4: unexpected {{end}}"),
    ],
)  # fmt: skip
def test_the_line_of_a_mistake(template: str, message: str) -> None:
    with pytest.raises(TemplateSyntaxError) as error:
        run(template)
    assert str(error.value) == message


RUN = [
    ("{{ nil }}", "1:3", "nil", "nil is not a command"),
    ("{{if nil}}x{{end}}", "1:5", "nil", "nil is not a command"),
    ("{{print (nil)}}", "1:9", "nil", "nil is not a command"),
    ("{{ $x = 2 }}", "1:8", "2", "undefined variable: $x"),
    ("{{ .missing.x }}", "1:11", ".missing.x", "nil pointer evaluating interface {}.x"),
    ("{{ .s.x }}", "1:5", ".s.x", "can't evaluate field x in type interface {}"),
    ("{{.l.x}}", "1:4", ".l.x", "can't evaluate field x in type interface {}"),
    ("{{.m.zz.b}}", "1:4", ".m.zz.b", "nil pointer evaluating interface {}.b"),
    ("{{$x := .s}}{{$x.y}}", "1:16", "$x.y", "can't evaluate field y in type string"),
    ("{{range .nl}}{{.x}}{{end}}", "1:15", ".x", "nil pointer evaluating interface {}.x"),
    ("{{range $a := .nl}}{{$a.x}}{{end}}", "1:23", "$a.x", "nil pointer evaluating interface {}.x"),
    (
        "{{range .l}}{{with .}}{{.x}}{{end}}{{end}}",
        "1:24",
        ".x",
        "can't evaluate field x in type string",
    ),
    ("{{range 3}}{{.x}}{{end}}", "1:13", ".x", "can't evaluate field x in type int"),
    (
        '{{ (index .m "k").z.y }}',
        "1:13",
        '"k"',
        "can't evaluate field y in type interface {}",
    ),
    ("{{print.x}}", "1:2", "print", "can't evaluate field x in type string"),
    ("{{ .s 3 }}", "1:3", ".s", "s is not a method but has arguments"),
    ("{{.n | .s}}", "1:7", ".s", "s is not a method but has arguments"),
    ("{{ 3 .s }}", "1:3", "3", "can't give argument to non-function 3"),
    ("{{ . .s }}", "1:3", ".", "can't give argument to non-function ."),
    ("{{1 | (.n)}}", "1:2", "1", "can't give argument to non-function .n"),
    ("{{(.s) 1}}", "1:2", "(.s) 1", "can't give argument to non-function .s"),
    ('{{ template "zz" . }}', "1:12", '{{template "zz" .}}', 'template "zz" not defined'),
    ("{{ len .n }}", "1:3", "len .n", "error calling len: len of nil pointer"),
    ("{{ len 3 }}", "1:3", "len 3", "error calling len: len of type int"),
    ("a\n  {{len 3}}", "2:4", "len 3", "error calling len: len of type int"),
    ("é{{len 3}}", "1:4", "len 3", "error calling len: len of type int"),
    ("{{print (len 3) 4}}", "1:9", "len 3", "error calling len: len of type int"),
    ("{{ index .l 9 }}", "1:3", "index .l 9", "error calling index: index out of range: 9"),
    (
        "{{ index .l 3 }}",
        "1:3",
        "index .l 3",
        "error calling index: reflect: slice index out of range",
    ),
    (
        '{{ index .l "a" }}',
        "1:3",
        'index .l "a"',
        "error calling index: cannot index slice/array with type string",
    ),
    (
        "{{index .l nil}}",
        "1:2",
        "index .l nil",
        "error calling index: cannot index slice/array with nil",
    ),
    ("{{ index .n 1 }}", "1:3", "index .n 1", "error calling index: index of untyped nil"),
    ("{{index .n}}", "1:2", "index .n", "error calling index: index of untyped nil"),
    ("{{index .nl 0 1}}", "1:2", "index .nl 0 1", "error calling index: index of nil pointer"),
    ("{{index .t 1}}", "1:2", "index .t 1", "error calling index: can't index item of type bool"),
    (
        "{{index .m 3}}",
        "1:2",
        "index .m 3",
        "error calling index: value has type int; should be string",
    ),
    (
        "{{index .m nil}}",
        "1:2",
        "index .m nil",
        "error calling index: value is nil; should be of type string",
    ),
    (
        '{{index .m "a" "b"}}',
        "1:2",
        'index .m "a" "b"',
        "error calling index: cannot index slice/array with type string",
    ),
    (
        "{{ slice .s 2 1 }}",
        "1:3",
        "slice .s 2 1",
        "error calling slice: invalid slice index: 2 > 1",
    ),
    ("{{ slice .n 1 }}", "1:3", "slice .n 1", "error calling slice: slice of untyped nil"),
    (
        "{{slice .s 1 2 3}}",
        "1:2",
        "slice .s 1 2 3",
        "error calling slice: cannot 3-index slice a string",
    ),
    ("{{slice .s 4}}", "1:2", "slice .s 4", "error calling slice: index out of range: 4"),
    ("{{slice .l -1}}", "1:2", "slice .l -1", "error calling slice: index out of range: -1"),
    (
        "{{slice .l 0 1 2 3}}",
        "1:2",
        "slice .l 0 1 2 3",
        "error calling slice: too many slice indexes: 4",
    ),
    (
        "{{slice .l 1.0}}",
        "1:2",
        "slice .l 1.0",
        "error calling slice: cannot index slice/array with type float64",
    ),
    (
        "{{slice .l .i}}",
        "1:2",
        "slice .l .i",
        "error calling slice: cannot index slice/array with type interface {}",
    ),
    (
        "{{slice .l (.i)}}",
        "1:2",
        "slice .l (.i)",
        "error calling slice: cannot index slice/array with type float64",
    ),
    (
        "{{range .l}}{{slice $.l .}}{{end}}",
        "1:14",
        "slice $.l .",
        "error calling slice: cannot index slice/array with type interface {}",
    ),
    ("{{slice .t 1}}", "1:2", "slice .t 1", "error calling slice: can't slice item of type bool"),
    ("{{ and }}", "1:3", "and", "wrong number of args for and: want at least 1 got 0"),
    ('{{ne .s "x" "y"}}', "1:2", "ne", "wrong number of args for ne: want 2 got 3"),
    ("{{len 1 2}}", "1:2", "len", "wrong number of args for len: want 1 got 2"),
    ("{{1 | ne 2 3}}", "1:6", "ne", "wrong number of args for ne: want 2 got 3"),
    (
        "{{ call .s }}",
        "1:3",
        "call .s",
        "error calling call: non-function .s of type string",
    ),
    ("{{call nil}}", "1:2", "call nil", "error calling call: call of nil"),
    ("{{ currentDate 3 }}", "1:15", "3", "expected string; found 3"),
    ("{{currentDate nil}}", "1:14", "nil", "cannot assign nil to string"),
    (
        "{{currentDate .i}}",
        "1:14",
        ".i",
        "wrong type for value; expected string; got float64",
    ),
    ("{{printf .n}}", "1:9", ".n", "wrong type for value; expected string; got interface {}"),
    ("{{3 | printf}}", "1:6", "printf", "wrong type for value; expected string; got int"),
    (
        "{{eq .i 3}}",
        "1:2",
        "eq .i 3",
        "error calling eq: incompatible types for comparison: float64 and int",
    ),
    (
        "{{eq 3 3.0}}",
        "1:2",
        "eq 3 3.0",
        "error calling eq: incompatible types for comparison: int and float64",
    ),
    (
        "{{eq .s 1}}",
        "1:2",
        "eq .s 1",
        "error calling eq: incompatible types for comparison: string and int",
    ),
    (
        "{{eq .l .l}}",
        "1:2",
        "eq .l .l",
        "error calling eq: non-comparable type [x y z]: []interface {}",
    ),
    (
        "{{eq .l .em}}",
        "1:2",
        "eq .l .em",
        "error calling eq: non-comparable types [x y z]: []interface {},"
        " map[string]interface {}: map[]",
    ),
    (
        "{{eq .em .m.k}}",
        "1:2",
        "eq .em .m.k",
        "error calling eq: non-comparable type map[z:%!s(float64=1)]: map[string]interface {}",
    ),
    ("{{eq 1}}", "1:2", "eq 1", "error calling eq: missing argument for comparison"),
    ("{{lt .n 1}}", "1:2", "lt .n 1", "error calling lt: invalid type for comparison"),
    (
        "{{lt true false}}",
        "1:2",
        "lt true false",
        "error calling lt: invalid type for comparison",
    ),
    (
        "{{lt 1 2.0}}",
        "1:2",
        "lt 1 2.0",
        "error calling lt: incompatible types for comparison: int and float64",
    ),
    ("{{ range .s }}x{{ end }}", "1:9", ".s", "range can't iterate over abc"),
    ("{{ range .i }}x{{ end }}", "1:9", ".i", "range can't iterate over 3"),
    ("{{range .t}}x{{end}}", "1:8", ".t", "range can't iterate over true"),
    ("{{range (print .s)}}x{{end}}", "1:15", ".s", "range can't iterate over abc"),
    (
        "{{range $i,$x := 2}}{{end}}",
        "1:17",
        "2",
        "can't use 2 to iterate over more than one variable",
    ),
    (
        "{{18446744073709551615}}",
        "1:2",
        "18446744073709551615",
        "18446744073709551615 overflows int",
    ),
]


@pytest.mark.parametrize(("template", "place", "node", "message"), RUN)
def test_what_fails_when_it_runs(template: str, place: str, node: str, message: str) -> None:
    with pytest.raises(TemplateRunError) as error:
        run(template)
    assert str(error.value) == f'template: :{place}: executing "" at <{node}>: {message}'


def test_an_error_names_the_template_in_which_it_happened() -> None:
    with pytest.raises(TemplateRunError) as error:
        run('{{template "x" .}}{{define "x"}}\n  {{.s.x}}{{end}}')
    assert str(error.value) == (
        'template: :2:6: executing "x" at <.s.x>: can\'t evaluate field x in type interface {}'
    )


@pytest.mark.parametrize("depth", [200, 5000])
def test_deep_nesting_is_refused(depth: int) -> None:
    for text in (
        "{{if 1}}" * depth + "{{end}}" * depth,
        "{{" + "(" * depth + "1" + ")" * depth + "}}",
        "{{if 1}}" + "{{else if 1}}" * depth + "{{end}}",
    ):
        with pytest.raises(TemplateSyntaxError, match="nested too deeply"):
            parse(text, BUILTINS)


def test_a_long_chain_of_else_if_is_no_deep_nesting() -> None:
    chain = "".join(f"{{{{else if eq . {n}}}}}{n}" for n in range(60))
    assert run("{{with 59}}{{if false}}" + chain + "{{end}}{{end}}") == "59"
