"""Every row of the contract's table C1 that has an output."""

import pytest
from gotemplate_samples import run

CASES = [
    ("a {{- 1 }} b", "a1 b"),
    ("a {{ 1 -}} b", "a 1b"),
    ("a {{-1}} b", "a -1 b"),
    ("x {{- /* c */ -}} y", "xy"),
    ("{{ $x := 1 }}{{ $x }}{{ $x = 2 }}{{ $x }}", "12"),
    ("{{ range $i, $v := .l }}{{ $i }}{{ $v }}{{ end }}", "0x1y2z"),
    ("{{ range .n }}a{{ else }}b{{ end }}", "b"),
    ("{{ range .missing }}a{{ else }}b{{ end }}", "b"),
    ("{{ range .el }}a{{ else }}b{{ end }}", "b"),
    ("{{ range $k,$v := .m }}{{ $k }}={{ $v }},{{ end }}", "a=q,b=1,k=map[z:1],"),
    ("{{ range 3 }}{{ . }}{{ end }}", "012"),
    ('{{ range .l }}{{ if eq . "y" }}{{ continue }}{{ end }}{{ . }}{{ end }}', "xz"),
    ('{{ range .l }}{{ if eq . "y" }}{{ break }}{{ end }}{{ . }}{{ end }}', "x"),
    ("{{ with .e }}y{{ else with .s }}w{{ . }}{{ else }}no{{ end }}", "wabc"),
    ("{{ if .e }}1{{ else if .s }}2{{ else }}3{{ end }}", "2"),
    ("{{ if .em }}1{{ else }}0{{ end }}", "0"),
    ("{{ .n }}{{ .missing }}", "<no value><no value>"),
    ("{{ .l }} {{ .m }} {{ .em }} {{ .el }}", "[x y z] map[a:q b:1 k:map[z:1]] map[] []"),
    ('{{ eq .s "x" "abc" }}', "true"),
    ("{{ eq .i 3.0 }}", "true"),
    ('{{ eq .missing "a" }} {{ eq .missing nil }} {{ ne .n nil }}', "false true false"),
    ("{{ or .s .missing.x.y }}", "abc"),
    ("{{ and .e .missing.x.y }}", ""),
    ("{{ or .b .n }}", "<no value>"),
    ("{{ .s | or .e }}", "abc"),
    ("{{ len .s }} {{ len .u }} {{ len .l }} {{ len .m }}", "3 6 3 3"),
    (
        '{{ index .l 1 }} {{ index .m "a" }} {{ index .m "zz" }} {{ index .s 1 }}',
        "y q <no value> 98",
    ),
    ("{{ slice .s 1 }} {{ slice .s 1 2 }} {{ slice .l 1 }}", "bc b [y z]"),
    ('{{ print 1 2 "a" "b" 3 }}|{{ print "a" 1 2 "b" }}', "1 2ab3|a1 2b"),
    (
        '{{ printf "%d" .i }} {{ printf "%v" .i }} {{ printf "%s" .i }} {{ printf "%d" }} '
        '{{ printf "a" 1 }}',
        "%!d(float64=3) 3 %!s(float64=3) %!d(MISSING) a%!(EXTRA int=1)",
    ),
    (
        '{{ printf "%s-%d-%v-%q-%5d|%-5s|%05.2f" "a" 3 1.5 "q" 7 "z" 3.14159 }}',
        'a-3-1.5-"q"-    7|z    |03.14',
    ),
    (
        r'{{ "a\tb\x41\u00e9\101" }}'
        " {{ 'a' }} {{ 0x1F }} {{ 1_000 }} {{ 017 }} {{ 1e21 }} {{ 123456789.0 }} {{ 0.00001 }}",
        "a\tbAéA 97 31 1000 15 1e+21 1.23456789e+08 1e-05",
    ),
    (
        '{{ html "<a href=\'x\'>&" }} {{ urlquery "a b&c=d/é" }}',
        "&lt;a href=&#39;x&#39;&gt;&amp; a+b%26c%3Dd%2F%C3%A9",
    ),
    ('{{ (index .m "k").z }} {{ .l | len | printf "%03d" }}', "1 003"),
    ('{{ define "t" }}[{{ . }}]{{ end }}{{ template "t" .s }}', "[abc]"),
    ('{{ block "b" .s }}<{{ . }}>{{ end }}', "<abc>"),
    ("{{ with .m }}{{ $.s }}{{ .a }}{{ end }}", "abcq"),
    ("{{ .s }}}", "abc}"),
    ("{ {{ .s }} }", "{ abc }"),
    ("{{ 1000000 }} {{ 1e6 }} {{ 1e5 }} {{ 2097152.0 }}", "1000000 1e+06 100000 2.097152e+06"),
    (
        '{{ json .m }} {{ json "<&>é" }}',
        '{"a":"q","b":1,"k":{"z":1}} "\\u003c\\u0026\\u003eé"',
    ),
    ("{{ $a := 0 }}{{ $b := 0 }}{{ range $a, $b = .l }}{{ end }}{{ $a }}{{ $b }}", "2z"),
    ("{{ range $i, $_ := .l }}{{ eq (len (slice $.l $i)) 1 }} {{ end }}", "false false true "),
    ("a\n{{- if .t }}\n b \n{{- end }}\n c", "a\n b\n c"),
    ('a \n\t{{- "x" -}} \n b', "axb"),
    ("{{ if .t -}}\n x\n{{- end -}}\n\ny", "xy"),
    ("{{- /* c */}} x", " x"),
    ("a {{- /* c */}} x", "a x"),
    ("{{ .s -}}}", "abc}"),
    ('x{{"}}"}}y', "x}}y"),
    ("{{slice .s 3}}|{{slice .s 0 0}}|{{slice .l 3}}", "||[]"),
    ("{{slice .l 1 2 3}}", "[y]"),
    (
        '{{eq .s "a" "b"}} {{eq .n 1}} {{eq 1 .n}} {{eq .missing .n}} {{eq nil nil}}',
        "false false false true true",
    ),
    ("{{lt .i 4.0}} {{ge .i 3.0}}", "true true"),
    ("{{index .l}}", "[x y z]"),
    ('{{print nil}} {{print .n}} {{print}}|{{println 1 "a"}}|', "<nil> <nil> |1 a\n|"),
    ("{{html nil}} {{html .l}} {{urlquery .l}}", "&lt;no value&gt; [x y z] %5Bx+y+z%5D"),
    ('{{printf "%v %s %q" .l .l .l}}', '[x y z] [x y z] ["x" "y" "z"]'),
    (
        '{{printf "%d" "x"}} {{printf "%"}} {{printf "%z" 1}}',
        "%!d(string=x) %!(NOVERB) %!z(int=1)",
    ),
    ('{{printf "%[2]d %[1]d" 1 2}} {{printf "%*d" 5 3}}', "2 1     3"),
    ("{{range 0}}x{{else}}e{{end}}", "e"),
    ("{{range $i := 2}}{{$i}}{{end}}", "01"),
    ("{{with $x := .s}}{{$x}}{{.}}{{end}}", "abcabc"),
    ('{{- $a := "1" -}}{{- if true -}}{{- $a = "2" -}}{{- end -}}{{ $a }}', "2"),
    ('{{- $a := "1" -}}{{- if true -}}{{- $a := "2" -}}{{- end -}}{{ $a }}', "1"),
    ('{{"a" | printf "%s-%s" "b"}}', "b-a"),
    ("{{.s | len | eq 3}}", "true"),
    ('{{template "x" .}}{{define "x"}}[{{.s}}{{$.s}}]{{end}}', "[abcabc]"),
    (r"{{ 0x1.8p1 }} {{ 1_0.5 }} {{ 0b11 }} {{ '\n' }}", "3 10.5 3 10"),
    ("{{json .missing}} {{json 1.0}}", "null 1"),
]


@pytest.mark.parametrize(("template", "expected"), CASES)
def test_output(template: str, expected: str) -> None:
    assert run(template) == expected


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (1000000.0, "1e+06 1e+06 1000000"),
        (1234567.0, "1.234567e+06 1.234567e+06 1234567"),
        (100000.5, "100000.5 100000.5 100000.5"),
        (20000000.5, "2.00000005e+07 2.00000005e+07 20000000.5"),
        (0.00001, "1e-05 1e-05 0.00001"),
    ],
)
def test_numbers_of_the_data_print_one_way_in_texts_and_another_in_json(
    x: float, expected: str
) -> None:
    assert run("{{ .x }} {{ print .x }} {{ json .x }}", x=x) == expected
