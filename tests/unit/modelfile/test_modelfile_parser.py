"""Cases C1 of modelfile-and-create."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.modelfile.errors import ModelfileError
from ollamad.modelfile.parser import parse

COMMAND = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", '
    '"renderer", "parser", "parameter", "message", or "requires"'
)
ROLE = 'message role must be one of "system", "user", or "assistant"'


def read(source: str | bytes) -> list[tuple[str, str]]:
    return [
        (" ".join(filter(None, (command.keyword, command.key))), command.argument)
        for command in parse(source).commands
    ]


@pytest.mark.parametrize(
    ("source", "commands"),
    [
        ("FROM foo\n", [("from", "foo")]),
        ("FROM foo", [("from", "foo")]),
        ("from foo\r\nSYSTEM hi\r\n", [("from", "foo"), ("system", "hi")]),
        ("FrOm  \t  foo  \t\n", [("from", "foo")]),
        ("\t#c\n  FROM foo\n", [("from", "foo")]),
        ("FROM foo # not a comment\n", [("from", "foo # not a comment")]),
        ("FROM ", [("from", "")]),
        ("FROM \n", [("from", "")]),
        ("FROM foo\rSYSTEM x\r", [("from", "foo"), ("system", "x")]),
        ("\x0cFROM foo\n", [("from", "foo")]),
        ("FROM foo\n# unterminated", [("from", "foo")]),
        ("FROM foo\n#BAD\rSYSTEM z\n", [("from", "foo"), ("system", "z")]),
        (b"\xef\xbb\xbfFROM foo\n", [("from", "foo")]),
        (b"\xff\xfe" + "FROM foo\r\n\n".encode("utf-16-le"), [("from", "foo")]),
        (b"\xfe\xff" + "FROM foo\r\n\n".encode("utf-16-be"), [("from", "foo")]),
        (b"FROM f\xffo\n", [("from", "f\ufffdo")]),
        ('FROM "a b"\n', [("from", "a b")]),
        ('FROM """x"""\n', [("from", "x")]),
        ("FROM foo bar\n", [("from", "foo bar")]),
        ("FROM a\nFROM b\n", [("from", "a"), ("from", "b")]),
        (
            "FROM foo\nSYSTEM x\n\n\n\nTEMPLATE y",
            [("from", "foo"), ("system", "x"), ("template", "y")],
        ),
        ("FROM fo\u00a0o\u200b\n", [("from", "foo")]),
    ],
)
def test_whole_files(source: str | bytes, commands: list[tuple[str, str]]) -> None:
    assert read(source) == commands


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("SYSTEM \n", ""),
        ("SYSTEM \t\n", ""),
        ('SYSTEM ""\n', ""),
        ('SYSTEM """"""\n', ""),
        ('SYSTEM """\n"""\n', "\n"),
        ('SYSTEM """a\nb"""\n', "a\nb"),
        ('SYSTEM "a\nb"\n', "a\nb"),
        ('SYSTEM "a "b" c"\n', 'a "b" c'),
        ('SYSTEM "a" b\nc"\n', 'a" b\nc'),
        ("SYSTEM 'a b'\n", "'a b'"),
        ('SYSTEM a "b\n', 'a "b'),
        ('SYSTEM """a""" trailing\nb"""\n', 'a""" trailing\nb'),
        ('SYSTEM "  lead and trail  "\n', "  lead and trail  "),
        ('SYSTEM  "  a"  \n', "  a"),
        ("SYSTEM line\\nbreak\n", "line\\nbreak"),
        ("SYSTEM a\0b\x01c\x07d\n", "abcd"),
        ('SYSTEM "a\tb\rc\nd"\n', "a\tb\rc\nd"),
        ("SYSTEM 日本語 😀\n", "日本語 😀"),
        ('SYSTEM """a\r\nb"""\r\n', "a\r\nb"),
        ("SYSTEM a\u00a0b\u200bc\ufeffd\u2028e\n", "a\u00a0b\u200bcd\u2028e"),
        ("SYSTEM \u00a0x\u00a0\n", "\u00a0x\u00a0"),
        ("SYSTEM 👩\u200d💻\n", "👩\u200d💻"),
        ('SYSTEM """"quoted""""\n', '"quoted"'),
        ('SYSTEM """a""\nb"""\n', 'a""\nb'),
        ('SYSTEM """""\nx"""\n', '""\nx'),
        ('SYSTEM """"""x\n"""\n', '"""x\n'),
        ("SYSTEM # x\n", "# x"),
        ('SYSTEM "\na\n"\n', "\na\n"),
    ],
)
def test_values(line: str, value: str) -> None:
    assert read("FROM foo\n" + line) == [("from", "foo"), ("system", value)]


@pytest.mark.parametrize(
    ("rest", "commands"),
    [
        (
            'SYSTEM """\na\n"b"\n"""\nPARAMETER seed 1\n',
            [("system", '\na\n"b"\n'), ("parameter seed", "1")],
        ),
        (
            'SYSTEM """a"""\t \nPARAMETER seed 1\n',
            [("system", "a"), ("parameter seed", "1")],
        ),
        ("PARAMETER  temperature 1\n", [("parameter temperature", "1")]),
        ("PARAMETER temperature\t0.3\n", [("parameter temperature", "0.3")]),
        ("PARAMETER temperature \t 0.3\n", [("parameter temperature", "0.3")]),
        ("PARAMETER model x\n", [("parameter model", "x")]),
        (
            'MESSAGE user hi\nMESSAGE assistant """a\nb"""\nMESSAGE system x: y\n',
            [("message user", "hi"), ("message assistant", "a\nb"), ("message system", "x: y")],
        ),
        ("MESSAGE  user hi\n", [("message user", "hi")]),
        ("MESSAGE user \n", [("message user", "")]),
        ('MESSAGE user ""\n', [("message user", "")]),
        ("PARAMETER stop a\u00a0b\n", [("parameter stop", "a\u00a0b")]),
        ("PARAMETER seed 1\u00a02\n", [("parameter seed", "12")]),
    ],
)
def test_commands_after_from(rest: str, commands: list[tuple[str, str]]) -> None:
    assert read("FROM foo\n" + rest) == [("from", "foo"), *commands]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        *[(text, "no FROM line") for text in ("", "\n\n", "# only\n", "SYSTEM hi\n")],
        ("PARAMETER model foo\n", "no FROM line"),
        ("FROM", "unexpected EOF"),
        ("FROM\n", f"(line 2): {COMMAND}"),
        ("FROM foo\nSYSTEM", "unexpected EOF"),
        ("FROM foo\nSYSTEM\n", f"(line 3): {COMMAND}"),
        ("FROM\u00a0foo\n", f"(line 1): {COMMAND}"),
        *[
            (f"FROM foo\n{line}\n", f"(line 2): {COMMAND}")
            for line in ("BAD x", "EMBED x", "S1 x", "SYS-TEM x", '"x"', "FR\u00d6M x", "1 x")
        ],
        ("FROM foo\nBAD\n", f"(line 3): {COMMAND}"),
        ("FROM foo\nBAD", "unexpected EOF"),
        ("FROM foo\n\n\nBADCOMMAND x\n", f"(line 4): {COMMAND}"),
        ('FROM foo\nSYSTEM """\n\n"""\nBAD x\n', f"(line 5): {COMMAND}"),
        ("FROM foo\r\nBAD x\r\n", f"(line 2): {COMMAND}"),
        ("FROM foo\r\n\r\nBAD\r\n", f"(line 4): {COMMAND}"),
        ("FROM foo\nPARAMETER temperature\n", "unexpected EOF: temperature"),
        ("FROM foo\nPARAMETER temperature", "unexpected EOF"),
        ("FROM foo\nPARAMETER temp-x 1\n", "unexpected EOF: temp"),
        ("FROM foo\nPARAMETER \n", "unexpected EOF: "),
        ("FROM foo\nPARAMETER\n", f"(line 3): {COMMAND}"),
        ("FROM foo\nMESSAGE User hi\n", f"(line 2): {ROLE}"),
        ("FROM foo\nMESSAGE tool hi\n", f"(line 2): {ROLE}"),
        ("FROM foo\nMESSAGE user\n", "unexpected EOF: user"),
        ("FROM foo\nMESSAGE user: hi\n", "unexpected EOF: user"),
        ("FROM foo\nMESSAGE user", "unexpected EOF"),
        (b"\xff\xfe\x46", "unexpected EOF"),
    ],
)
def test_errors(source: str | bytes, message: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        parse(source)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "line",
    [
        'SYSTEM "\n',
        'SYSTEM "a" b\n',
        'SYSTEM """a"\n',
        'SYSTEM ""x\n',
        'SYSTEM """""\n',
        'SYSTEM "unterminated\nPARAMETER seed 1\n',
        'SYSTEM """a\nPARAMETER stop "b"\n',
    ],
)
def test_open_quotes_name_the_value(line: str) -> None:
    with pytest.raises(ModelfileError) as caught:
        parse("FROM foo\n\n" + line)
    first, second = caught.value.message.split("\n")
    assert first == "unexpected EOF"
    assert second == "(value of SYSTEM that starts at line 3 is not closed)"


def test_open_quotes_name_parameter_and_role() -> None:
    with pytest.raises(ModelfileError, match="value of PARAMETER stop that starts at line 2"):
        parse('FROM x\nPARAMETER stop "a')
    with pytest.raises(ModelfileError, match="value of MESSAGE user that starts at line 2"):
        parse('FROM x\nMESSAGE user "a')


def test_size_limit_counts_bytes_of_the_decoded_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollamad.modelfile.text.MAX_SIZE", 12)
    monkeypatch.setattr("ollamad.modelfile.text._MAX_ENCODED", 28)
    assert read(b"FROM 12345 \n") == [("from", "12345")]
    assert read(b"\xff\xfe" + "FROM 12345 \n".encode("utf-16-le")) == [("from", "12345")]
    for source in ("FROM 123456 \n", "FROM ééé \n ".encode(), b" " * 29):
        with pytest.raises(ModelfileError, match="Modelfile is larger than 64 MiB"):
            parse(source)


def test_many_closing_quotes_inside_a_value_are_read_in_linear_time() -> None:
    # Joining the value at each line would take minutes here.
    licence = '"""a\n' + 'b" \n' * 200_000 + '"""'
    assert len(parse(f"FROM x\nLICENSE {licence}\n").commands[1].argument) == 2 + 4 * 200_000


@given(st.one_of(st.text(), st.binary()))
def test_any_input_is_read_or_refused(source: str | bytes) -> None:
    try:
        parse(source)
    except ModelfileError:
        pass


@given(st.text(alphabet=' \t\r\n"#abFROM', max_size=40))
def test_values_never_hold_outer_blanks_unless_quoted(value: str) -> None:
    try:
        commands = parse(f"FROM x\nSYSTEM {value}\n").commands
    except ModelfileError:
        return
    system = commands[1].argument
    if not value.lstrip(" \t").startswith('"'):
        assert system == system.strip(" \t\r\n")
        assert "\n" not in system
