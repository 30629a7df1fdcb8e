"""What a template's tree tells about it: prompting.md C2, 7.1 and 8.1."""

import pytest

from ollamad.gotemplate.parser import parse_text
from ollamad.prompting.tags import calls_without_data, thinking_tags, tool_tag, variables

FUNCTIONS = ("and", "eq", "gt", "index", "len", "not", "or", "print", "printf", "slice")


def names(text: str) -> set[str]:
    root, definitions = parse_text(text, FUNCTIONS)
    return set(variables([root, *definitions.values()]))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ .Prompt }}", {"prompt"}),
        (
            "{{ with .Tools }}{{ . }}{{ end }} {{ .System }} {{ .Prompt }}",
            {"prompt", "system", "tools"},
        ),
        (
            '{{ range .Messages }}{{ if eq .Role "tool" }}Tool Result: {{ .ToolName }} '
            "{{ .Content }}{{ end }}{{ end }}",
            {"content", "messages", "role", "toolname"},
        ),
        ("{{ if gt (len .Messages) 0 }}x{{ end }}", {"messages"}),
        ("{{ .Function.Arguments }}", {"function", "arguments"}),
        ("{{ $m := .A }}{{ $m.Content }}", {"a", "$m", "content"}),
        ("{{ $.Messages }}", {"$", "messages"}),
        ("{{ $q := 1 }}", set()),
        ("{{ (index .Messages 0).Content }}", set()),
        ('{{ define "x" }}{{ .Suffix }}{{ end }}{{ template "x" .Y }}', {"suffix", "y"}),
        ("{{ if .A }}{{ else if .B }}{{ else }}{{ .C }}{{ end }}", {"a", "b", "c"}),
        ("{{ range $i, $e := .L }}{{ end }}{{ $x := .M }}", {"l", "m"}),
        ("static", set()),
    ],
)
def test_variables(text: str, found: set[str]) -> None:
    assert names(text) == found


def test_a_template_that_is_called_without_data_is_seen_wherever_it_stands() -> None:
    for text in (
        '{{ define "x" }}{{ template "x" }}{{ end }}',
        '{{ if .A }}{{ else }}{{ template "x" }}{{ end }}',
    ):
        root, definitions = parse_text(text, FUNCTIONS)
        assert calls_without_data([root, *definitions.values()])
    root, definitions = parse_text('{{ if .A }}{{ template "x" . }}{{ end }}', FUNCTIONS)
    assert not calls_without_data([root, *definitions.values()])


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (
            "{{ range $i, $_ := .Messages }}{{ $last := eq $i 1 }}a{{ if and $last .Thinking }}\n"
            "<think>{{ .Thinking }}</think>\n{{ end }}{{ end }}",
            ("<think>", "</think>"),
        ),
        (
            "{{ range $i, $_ := .Messages }}{{ range $j, $_ := .NotMessages }}"
            "{{ if .Thinking }}\n<think>{{ .Thinking }}</think>\n{{ end }}{{ end }}{{ end }}",
            ("", ""),
        ),
        (
            "{{ range .Messages }}{{ if .Thinking }} Some text before   {{ .Thinking }}    "
            "Some text after {{ end }}{{ end }}",
            ("Some text before", "Some text after"),
        ),
        ("{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}", ("", "")),
        ("{{ range $.Messages }}<t>{{ .Thinking }}</t>{{ end }}", ("", "")),
        ("{{ range $m := .Messages }}<t>{{ $m.Thinking }}</t>{{ end }}", ("", "")),
        ("{{ range (slice .Messages 1) }}<t>{{ print .Thinking }}</t>{{ end }}", ("<t>", "</t>")),
        # A list that ends with an action gives no closing tag.
        ("{{ range .Messages }}<t>{{ .Thinking }}{{ .Content }}{{ end }}", ("<t>", "")),
        # Later ones count, tag by tag.
        (
            "{{ range .Messages }}{{ if .A }}<a>{{ .Thinking }}</a>{{ else }}<b>{{ .Thinking }}"
            "{{ end }}{{ end }}",
            ("<b>", "</a>"),
        ),
        # A header belongs to the list that its branch stands in.
        ("{{ range .Messages }}<o>{{ if .Thinking }}x{{ end }}</o>{{ end }}", ("<o>", "</o>")),
        ("{{ range .Messages }}{{/* c */}}<t>{{ .Thinking }}</t>{{ end }}", ("<t>", "</t>")),
    ],
)
def test_thinking_tags(text: str, tags: tuple[str, str]) -> None:
    assert thinking_tags(parse_text(text, FUNCTIONS)[0]) == tags


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("", "{"),
        ("{{if .ToolCalls}}{{end}}", "{"),
        ("{{if .ToolCalls}}{{range .ToolCalls}}{{ . }}{{end}}{{end}}", "{"),
        ("{{if .ToolCalls}}```json\n{{end}}", "```json"),
        ("{{if .ToolCalls}}\n [ {{range .ToolCalls}}{{ . }}{{end}}]{{end}}", "["),
        ("{{if .ToolCalls}}{{range .ToolCalls}}{{ . }}{{end}}]{{end}}", "{"),
        (
            '{{if .ToolCalls}}{{range .ToolCalls}}<tool_call>{"name": "{{ .Function.Name }}"'
            "{{end}}{{end}}",
            "<tool_call>",
        ),
        ("{{if .ToolCalls}}[TOOL_CALLS] [{{range .ToolCalls}}x{{end}}{{end}}", "[TOOL_CALLS] ["),
        ("{{if .ToolCalls}}Action: ```json{{end}}", "Action: ```json"),
        ("{{if .ToolCalls}}First text{{if .X}}inner{{end}}{{end}}", "First text"),
        ("{{if .ToolCalls}}functools[{{end}}", "functools["),
        # The search goes into other branches, and into chains, but not into parentheses.
        ("{{range .M}}{{else}}{{with .A}}{{if $.X}}{{end}}{{end}}{{end}}", "{"),
        ("{{range .M}}{{else}}{{with .A}}{{if .X.ToolCalls}}<t>{{end}}{{end}}{{end}}", "<t>"),
        ("{{if and .A .ToolCalls}}<t>{{end}}", "<t>"),
        ("{{if (len .ToolCalls)}}<t>{{end}}", "{"),
        # The first such branch counts, and of it the first nested one.
        ("{{if .ToolCalls}}{{end}}{{if .ToolCalls}}<t>{{end}}", "{"),
        ("{{if .ToolCalls}} {{if .A}} {{else}}<e>{{end}}<t>{{end}}", "<e>"),
        ("{{if .ToolCalls}} {{if .A}} {{end}}<t>{{end}}", "{"),
        ("{{if .ToolCalls}}<a>\r\n<b>{{end}}", "<a>\n<b>"),
    ],
)
def test_tool_tag(text: str, tag: str) -> None:
    assert tool_tag(parse_text(text, FUNCTIONS)[0]) == tag
