"""What the words of a command line mean."""

from __future__ import annotations

import pytest

from ollamad.cli.commands import ROOT_FLAGS, check_count, find
from ollamad.cli.flags import Flag, command_position, integer, parse
from ollamad.errors import UsageError

FLAGS = (
    Flag("verbose", "", short="v"),
    Flag("json", "", short="j"),
    Flag("file", "", "string", "f"),
    Flag("think", "", "string", optional="true"),
    Flag("dimensions", "", "int"),
)


@pytest.mark.parametrize(
    ("words", "positional", "given"),
    [
        (["m", "-v", "hi"], ("m", "hi"), {"verbose": True}),
        (["-vj", "m"], ("m",), {"verbose": True, "json": True}),
        (["-vfx", "m"], ("m",), {"verbose": True, "file": "x"}),
        (["-f", "x", "m"], ("m",), {"file": "x"}),
        (["-f=x"], (), {"file": "x"}),
        (["--file=a=b"], (), {"file": "a=b"}),
        (["--file="], (), {"file": ""}),
        (["--file", "-v"], (), {"file": "-v"}),
        (["--verbose=false"], (), {"verbose": False}),
        (["--verbose", "false"], ("false",), {"verbose": True}),
        (["--think", "high"], ("high",), {"think": "true"}),
        (["--think=high", "m"], ("m",), {"think": "high"}),
        (["m", "--", "-v", "--x"], ("m", "-v", "--x"), {}),
        (["-", "m"], ("-", "m"), {}),
        (["--dimensions", "0x10"], (), {"dimensions": 16}),
        (["-h"], (), {"help": True}),
    ],
)
def test_parse(words: list[str], positional: tuple[str, ...], given: dict[str, object]) -> None:
    parsed = parse(FLAGS, words)
    assert parsed.words == positional
    assert parsed.given == given


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["--nope=1"], "unknown flag: --nope"),
        (["-vz"], "unknown shorthand flag: 'z' in -z"),
        (["-xyz"], "unknown shorthand flag: 'x' in -xyz"),
        (["--file"], "flag needs an argument: --file"),
        (["-f"], "flag needs an argument: 'f' in -f"),
        (["--=x"], "bad flag syntax: --=x"),
        (["---x"], "bad flag syntax: ---x"),
        (
            ["--dimensions", "x"],
            'invalid argument "x" for "--dimensions" flag: strconv.ParseInt: parsing "x": '
            "invalid syntax",
        ),
        (
            ["-v=maybe"],
            'invalid argument "maybe" for "-v, --verbose" flag: strconv.ParseBool: '
            'parsing "maybe": invalid syntax',
        ),
    ],
)
def test_parse_errors(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(FLAGS, words)
    assert raised.value.message == message


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("-3", -3), ("0x1F", 31), ("0b11", 3), ("0o17", 15), ("017", 15)],
)
def test_integer(text: str, value: int) -> None:
    assert integer(text) == value


@pytest.mark.parametrize("text", ["", " 1", "1_000", "1.5", "٣", "0x", "08", "9" * 5000])
def test_integer_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r"strconv\.ParseInt: parsing"):
        integer(text)


@pytest.mark.parametrize(
    ("words", "position"),
    [
        (["list"], 0),
        (["--verbose", "run", "m"], 1),
        (["-v"], None),
        (["--unknown", "list"], None),
        (["--unknown=1", "list"], 1),
        (["--", "list"], None),
    ],
)
def test_the_command_is_the_first_word_that_is_no_flag(
    words: list[str], position: int | None
) -> None:
    assert command_position(ROOT_FLAGS, words) == position


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("create", 0, "accepts 1 arg(s), received 0"),
        ("cp", 3, "accepts 2 arg(s), received 3"),
        ("serve", 1, "accepts 0 arg(s), received 1"),
        ("run", 0, "requires at least 1 arg(s), only received 0"),
        ("rm", 0, "requires at least 1 arg(s), only received 0"),
    ],
)
def test_counts_of_words(name: str, count: int, message: str) -> None:
    command = find(name)
    assert command is not None
    with pytest.raises(UsageError) as raised:
        check_count(command, count)
    assert raised.value.message == message


def test_names_are_exact() -> None:
    assert find("ls") is find("list")
    assert find("LIST") is None
    assert find("lis") is None
