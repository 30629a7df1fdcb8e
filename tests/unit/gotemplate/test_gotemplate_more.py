"""What the table does not show; all outputs are those of Go 1.26."""

import pytest
from gotemplate_samples import DATA, FUNCTIONS, run

from ollamad.gotemplate.errors import TemplateRunError
from ollamad.gotemplate.template import parse

CASES = [
    # No value at all has every field; a nil interface has none (see the errors).
    ("{{$x := .n}}{{$x.y}}", "<no value>"),
    ("{{(.n).x}}", "<no value>"),
    ('{{template "x" .missing}}{{define "x"}}[{{.}}{{.x}}]{{end}}', "[<no value><no value>]"),
    # The variables of a range hold the list until there is an element.
    ("{{range $x := .el}}{{else}}{{$x}}{{end}}", "[]"),
    ("{{range $i,$x := .n}}{{else}}{{$i}}{{$x}}{{end}}", "<no value><no value>"),
    ("{{$i := 7}}{{range $i = .l}}{{break}}{{end}}{{$i}}", "x"),
    ("{{range 2}}{{range 3}}{{if eq . 1}}{{break}}{{end}}{{.}}{{end}};{{end}}", "0;0;"),
    ("{{range 3}}{{with eq . 1}}{{continue}}{{end}}{{.}}{{else}}none{{end}}", "02"),
    ("{{range -1}}x{{else}}e{{end}}", "e"),
    ("{{range 1000000000000}}{{break}}{{end}}", ""),
    ("{{with .e}}{{else}}{{.s}}{{end}}", "abc"),
    ("{{if .b}}{{$x = 2}}{{end}}", ""),
    ("{{$ = 1}}{{$}}", "1"),
    ("{{$x := 1}}{{with $x := 2}}{{$x = 3}}{{$x}}{{end}}{{$x}}", "31"),
    ("{{1|print 2|print 3}}", "32 1"),
    ("{{and 1 2}}{{or 0 2}}{{0 | and 1}}{{not nil}}{{not .s}}", "220truefalse"),
    ("{{and nil}}", "<no value>"),
    ("{{.n | print}}", "<nil>"),
    ("{{.nl}} {{print .nl}}", "[<nil> 1 [<nil>]] [<nil> 1 [<nil>]]"),
    ('{{define ""}}x{{end}}', "x"),
    ('{{define "a"}}{{end}}{{define "a"}}x{{end}}{{template "a" .}}', "x"),
    ('{{define "a"}}x{{end}}{{define "a"}} \n{{end}}{{template "a" .}}', "x"),
    ("{{`a\r\nb`}}", "a\nb"),
    ('{{"{{"}}', "{{"),
    ("{{\n.s\n|\nlen\n}}", "3"),
    ("{{- `x` -}}\n", "x"),
    ("{{print print}}|", "|"),
    ("{{slice .s}}{{slice .l}}", "abc[x y z]"),
    ("{{eq .l .n}}{{eq nil .l}}{{ne .n .s}}", "falsefalsetrue"),
    ("{{le 1 1}}{{gt 2 1}}{{ge 1 2}}{{lt `a` `b`}}", "truetruefalsetrue"),
    # Bytes of one character that come together are that character again.
    ("{{$h := slice .u 0 2}}{{$h}}{{slice .u 2}}", "héllo"),
    ("{{print (slice .u 0 2) (slice .u 2) | eq .u}}", "true"),
    ("a {{- 1 \n\t -}} \n b", "a1b"),
    ("{{slice .u 0 2}}!", "h\ufffd!"),
    (r'{{"\xc3\xa9"}}{{"\xff"}}{{len "\xff"}}', "é\ufffd1"),
    ('{{html 1 2 "a" "b" 3}}{{html nil 1}}{{html}}', "1 2ab3&lt;no value&gt;1"),
    (
        r"""{{js "a=b'\"<>&\n\u00ad\u2028é\x00\x7f\\"}}""",
        "a\\u003Db\\'\\\"\\u003C\\u003E\\u0026\\u000A\\u00AD\\u2028é\\u0000\x7f\\\\",
    ),
    (r'{{urlquery "~-_.!*()\x00 +/\xff"}}', "~-_.%21%2A%28%29%00+%2B%2F%FF"),
    (r'{{html "\x00"}}', "\ufffd"),
    ("{{currentDate .s `x`}}", "today"),
    ("{{1e3}} {{.5}} {{0o17}} {{+5}} {{-0.0}} {{1E2}} {{'\\''}}", "1000 0.5 15 5 -0 100 39"),
]


@pytest.mark.parametrize(("template", "expected"), CASES)
def test_output(template: str, expected: str) -> None:
    assert run(template) == expected


def test_maps_print_and_iterate_sorted() -> None:
    values = {"b": 1.0, "a": {"d": None, "c": True}}
    assert run("{{.x}}", x=values) == "map[a:map[c:true d:<nil>] b:1]"
    assert run("{{range $k, $v := .x}}{{$k}}{{end}}{{printf `%v` .x}}", x=values) == (
        "abmap[a:map[c:true d:<nil>] b:1]"
    )


def test_and_and_or_evaluate_nothing_once_decided() -> None:
    assert run("{{or 1 ($x := 2)}}") == "1"
    with pytest.raises(TemplateRunError, match=r"undefined variable: \$x"):
        run("{{or 1 ($x := 2)}}{{$x}}")
    assert run("{{or 0 ($x := 2)}}{{$x}}") == "22"


def test_another_tree_of_the_same_text_can_run() -> None:
    parsed = parse('a{{template "d" .}}b{{define "d"}}{{.s}}{{end}}', FUNCTIONS)
    shorter = type(parsed.root)(0, parsed.root.nodes[:2])
    assert parsed.execute(DATA, shorter) == "aabc"
    assert parsed.execute(DATA) == "aabcb"


def test_a_template_runs_any_number_of_times() -> None:
    parsed = parse("{{$x := .s}}{{range .l}}{{$x = .}}{{end}}{{$x}}", FUNCTIONS)
    assert [parsed.execute({"s": "1", "l": values}) for values in ([], ["2"], [])] == [
        "1",
        "2",
        "1",
    ]


@pytest.mark.parametrize(
    "template",
    [
        '{{define "a"}}{{template "a" .}}{{end}}{{template "a" .}}',
        "{{range 100000}}{{range 100000}}{{end}}{{end}}",
        '{{$x := "0123456789"}}{{range 40}}{{$x = print $x $x}}{{end}}',
        '{{printf "%999999d" 1}}',
        '{{printf "%*d" 999999 1}}',
        '{{$x := printf "%9999d" 1}}{{range 100000}}{{$x}}{{end}}',
        # Calls itself twice, so that the number of calls doubles with each byte of the text.
        '{{define "a"}}{{if .}}{{template "a" slice . 1}}{{template "a" slice . 1}}{{end}}{{end}}'
        '{{template "a" "' + "x" * 64 + '"}}',
    ],
)
def test_no_template_can_stop_the_daemon(template: str) -> None:
    with pytest.raises(TemplateRunError):
        run(template)
