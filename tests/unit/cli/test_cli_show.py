"""The sections of show."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_server import Cli, Script, ok

from ollamad.cli.numbers import LONG, SHORT, float32_json, shortest
from ollamad.cli.show import metadata_value

DETAILS = {"family": "test", "parameter_size": "7B", "quantization_level": "FP16"}


def rows(text: str) -> list[list[str]]:
    """Section titles and cells, without the blanks between."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()
    ]


def shown(cli: Cli, server: Script, *flags: str, **fields: Any) -> str:
    server.on("POST /api/show", ok({"details": DETAILS, **fields}))
    result = cli("show", "m", *flags)
    assert (result.status, result.err) == (0, "")
    return result.out


def test_details_only(cli: Cli, server: Script) -> None:
    assert shown(cli, server) == (
        "  Model\n"
        "    architecture    test    \n"
        "    parameters      7B      \n"
        "    quantization    FP16    \n"
        "\n"
    )
    assert server.requests[-1].json == {"model": "m", "name": "m"}


def test_model_info_comes_before_details(cli: Cli, server: Script) -> None:
    info = {
        "general.architecture": "llama",
        "general.parameter_count": 8_030_261_248,
        "llama.context_length": 0,
        "llama.embedding_length": 0,
    }
    out = shown(
        cli,
        server,
        model_info=info,
        details={"quantization_level": "F16"},
        requires="0.19.0",
        capabilities=["vision", "tools"],
    )
    assert out == (
        "  Model\n"
        "    architecture        llama     \n"
        "    parameters          8.0B      \n"
        "    context length      0         \n"
        "    embedding length    0         \n"
        "    quantization        F16       \n"
        "    requires            0.19.0    \n"
        "\n"
        "  Capabilities\n"
        "    vision    \n"
        "    tools     \n"
        "\n"
    )


def test_a_remote_model_says_where_it_is(cli: Cli, server: Script) -> None:
    out = shown(cli, server, remote_model="gpt", remote_host="https://ollama.com:443")
    assert out.startswith(
        "  Model\n"
        "    Remote model    gpt                       \n"
        "    Remote URL      https://ollama.com:443    \n"
    )


def test_projector(cli: Cli, server: Script) -> None:
    info = {
        "general.architecture": "clip",
        "general.parameter_count": 133_700_000,
        "clip.vision.embedding_length": 0,
        "clip.vision.projection_dim": 0,
        "clip.audio.projection_dim": 5,
    }
    out = shown(cli, server, projector_info=info)
    assert out.split("  Projector\n")[1] == (
        "    architecture        clip       \n"
        "    parameters          133.70M    \n"
        "    embedding length    0          \n"
        "    dimensions          0          \n"
        "\n"
    )


def test_parameters_are_split_at_blanks(cli: Cli, server: Script) -> None:
    text = '\n  stop   never\n  stop  gonna\n\n  temperature 99\nstop "### User: "'
    assert shown(cli, server, parameters=text).split("  Parameters\n")[1] == (
        "    stop           never    \n"
        "    stop           gonna    \n"
        "    temperature    99       \n"
        '    stop           "###     User:    "    \n'
        "\n"
    )


def test_system_and_license_show_their_first_two_lines(cli: Cli, server: Script) -> None:
    out = shown(cli, server, system="a\nb\nc", license="one\n\n\n  two  \n")
    assert rows(out.split("  System\n")[1]) == [
        ["a"],
        ["b"],
        ["..."],
        [],
        ["License"],
        ["one"],
        ["two"],
        [],
    ]
    assert rows(shown(cli, server, system=" \n "))[-2:] == [["System"], []]


def test_verbose_adds_metadata_and_tensors(cli: Cli, server: Script) -> None:
    info = {"general.parameter_count": 8e9, "general.architecture": "t", "t.flag": True}
    tensors = [{"name": "blk.0.attn_k.weight", "type": "BF16", "shape": [42, 3117]}]
    out = shown(cli, server, "-v", model_info=info, tensors=tensors)
    assert server.requests[-1].json["verbose"] is True
    assert rows(out.split("  Metadata\n")[1]) == [
        ["general.architecture", "t"],
        ["general.parameter_count", "8e+09"],
        ["t.flag", "true"],
        [],
        ["Tensors"],
        ["blk.0.attn_k.weight", "BF16", "[42 3117]"],
        [],
    ]
    assert "Metadata" not in shown(cli, server, model_info=info, tensors=tensors)


@pytest.mark.parametrize(
    ("flag", "out"),
    [
        ("--license", "L\n"),
        ("--modelfile", "M\n"),
        ("--parameters", "P\n"),
        ("--system", "S"),
        ("--template", "T"),
    ],
)
def test_one_part(cli: Cli, server: Script, flag: str, out: str) -> None:
    parts = {"license": "L", "modelfile": "M", "parameters": "P", "system": "S", "template": "T"}
    assert shown(cli, server, flag, **parts) == out


def test_a_part_that_is_not_there_is_an_empty_line(cli: Cli, server: Script) -> None:
    assert shown(cli, server, "--license") == "\n"


def test_two_parts_are_an_error_before_any_request(cli: Cli, server: Script) -> None:
    result = cli("show", "m", "--license", "--system")
    assert result.err == (
        "Error: only one of '--license', '--modelfile', '--parameters', '--system', or "
        "'--template' can be specified\n"
    )
    assert not server.sent("POST /api/show")


def test_image_models_are_refused(cli: Cli, server: Script) -> None:
    server.on("POST /api/show", ok({"capabilities": ["image"]}))
    assert cli("show", "m").err == "Error: image generation models are not currently supported\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("text", "text"),
        (131_072, "131072"),
        (8_030_261_248, "8.030261248e+09"),
        (8_000_000_000, "8e+09"),
        (1e-05, "1e-05"),
        (0.0001, "0.0001"),
        (-1.5, "-1.5"),
        (0, "0"),
        (10**400, "+Inf"),
        ([1, 2, 3, 4, 5, 6], "[1 2 3 ...+3 more]"),
        (["Ġ t", "Ġ a", "x", "y"], "[Ġ t Ġ a ...+2 more]"),
        ([0.1, 1_000_000, True], "[0.1 ...+2 more]"),
        (["日本", "東京都", "x"], "[日本 ...+2 more]"),
        (["a string that is long", "b"], "[a string that is long ...+1 more]"),
        ([], "[]"),
        ([1, 2, 3], "[1 2 3]"),
    ],
)
def test_metadata_values(value: object, text: str) -> None:
    assert metadata_value(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-9, "1e-9"),
        (1.0, "1"),
        (-0.5, "-0.5"),
        (123456789.123, "123456790"),
        (0.1, "0.1"),
        (1e21, "1e+21"),
        (1e-6, "0.000001"),
        (1e-12, "1e-12"),
        (0.0, "0"),
        (-0.0, "-0"),
    ],
)
def test_float32_json(value: float, text: str) -> None:
    assert float32_json(value) == text


def test_the_form_with_an_exponent_begins_where_asked() -> None:
    assert shortest(1e6, SHORT) == "1e+06"
    assert shortest(1e6, LONG) == "1000000"
    assert shortest(1e-7, LONG) == "1e-07"
    assert shortest(float("nan"), LONG) == "NaN"
