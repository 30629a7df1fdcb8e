"""Whatever the text: a template, one of the two errors, never anything else."""

import math

from gotemplate_samples import DATA, FUNCTIONS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ollamad.gotemplate.errors import TemplateRunError, TemplateSyntaxError
from ollamad.gotemplate.numbers import format_float, parse_number
from ollamad.gotemplate.quoting import quote, unquoted
from ollamad.gotemplate.template import parse

_WORDS = st.sampled_from(
    [
        *"{}()|.$-=,:'\"`\\ \n#é0",
        *("{{", "}}", "{{- ", " -}}", "/*", "*/", ":=", "if ", "else ", "end", "range ", "with "),
        *("define ", "template ", "block ", "break", "continue", "nil", "true", '"x"', "`x`"),
        *(".s", ".l", ".m.k", ".n.x", ".nl", "$x", "$x := ", "$x, $y := ", "1", "-2.5", "0x1p3"),
        *("len ", "index ", "slice ", "eq ", "lt ", "and ", "or ", "print ", "printf ", "call "),
        *("html ", "js ", "urlquery ", "json ", "currentDate ", '"%5.2v%[2]*d%+q%#x%"', "'a'"),
        *("{{if .t}}", "{{else}}", "{{end}}", "{{range .l}}", "{{with .m}}", "{{.s}}", "{{1e3}}"),
    ]
)
_TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(_WORDS, max_size=25).map("".join),
    st.lists(_WORDS, max_size=12).map(lambda words: "{{" + " ".join(words) + "}}"),
)


@settings(max_examples=600, deadline=None)
@given(_TEXTS)
@example("{{" + "(" * 3000)
@example("{{'\\")
@example('{{"\ud800"}}\ud800{{.s}}')
@example("{{0x}}{{1_}}{{'''}}")
@example('{{printf "%" "%[" "%." "%*"}}')
def test_only_the_two_errors(text: str) -> None:
    output, failure = "", None
    try:
        output = parse(text, FUNCTIONS).execute(DATA)
    except (TemplateSyntaxError, TemplateRunError) as error:
        failure = str(error)
    output.encode()
    assert failure is None or failure.startswith("template: :")
    if "{{" not in text and text.isascii():
        assert output == text


@given(st.floats(allow_nan=False))
def test_floats_print_so_that_they_read_back(value: float) -> None:
    text = format_float(value)
    assert float(text) == value
    if math.isfinite(value):
        assert len(text.replace("-", "")) <= len(f"{value:.17e}")


@given(st.text())
def test_quoted_strings_read_back(text: str) -> None:
    assert unquoted(quote(text)) == text
    assert unquoted(quote(text, ascii_only=True)) == text
    assert quote(text, ascii_only=True).isascii()


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_in_every_base_are_the_same(value: int) -> None:
    assert parse_number(str(value)) == value
    assert parse_number(hex(value)) == parse_number(oct(value)) == parse_number(bin(value)) == value
