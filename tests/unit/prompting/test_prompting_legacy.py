"""The cut after the response: prompting.md 3.6."""

import pytest

from ollamad.gotemplate.parser import parse_text
from ollamad.prompting.legacy import cut_after_response


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a{{ .Response }}b", "a{{.Response}}"),
        ("a{{ .Prompt }}b", "a{{.Prompt}}b"),
        (
            "{{ if .A }}x{{ .Response }}y{{ else }}z{{ end }}w",
            "{{if .A}}x{{.Response}}{{else}}{{end}}",
        ),
        ("{{ if .Response }}x{{ end }}y", "{{if .Response}}x{{end}}y"),
        (
            "{{ if .A }}x{{ else }}{{ .Response }}z{{ end }}",
            "{{if .A}}x{{else}}{{.Response}}{{end}}",
        ),
        ("{{ range .L }}{{ .Response }}a{{ end }}b", "{{range .L}}{{.Response}}{{end}}"),
        ("{{ with .M }}{{ .X.Response.Y }}a{{ end }}b", "{{with .M}}{{.X.Response.Y}}{{end}}"),
        ("{{ $.Response }}tail", "{{$.Response}}tail"),
        ('{{ printf "%s-%s" .Response .Prompt }}x', '{{printf "%s-%s" .Response}}'),
        ('{{ printf "%s" (print .Response 1) 2 }}x', '{{printf "%s" (print .Response)}}'),
        ("a{{ .Response | print }}b", "a"),
        ("a{{ print (.Response | print) }}b", "a"),
        ("a{{ $x := .Response }}b", "a{{$x := .Response}}"),
        (
            "{{ range .L }}{{ break }}{{ end }}{{ .Response }}",
            "{{range .L}}{{break}}{{end}}{{.Response}}",
        ),
    ],
)
def test_everything_after_the_first_response_is_removed(text: str, kept: str) -> None:
    root = parse_text(text, ("print", "printf"))[0]
    before = str(root)
    assert str(cut_after_response(root)) == kept
    assert str(root) == before, "the whole tree is needed for the other turns"
