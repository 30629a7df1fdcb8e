"""Cases C4 and C5 of modelfile-and-create, and the request made of a whole Modelfile."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollamad.errors import UsageError
from ollamad.modelfile.digests import digests_of
from ollamad.modelfile.directory import choose, matching, names_sent
from ollamad.modelfile.parser import parse
from ollamad.modelfile.request import Bundle, create_request
from ollamad.modelfile.sniff import content_type

BINARY = b"GGUF\x03\x00\x00\x00"
ZIP = b"PK\x03\x04rest"


def write(root: Path, **files: bytes) -> None:
    for name, content in files.items():
        put(root / name, content)


def put(path: Path, content: bytes = b"{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def build(text: str, base: Path, **options: Any) -> Bundle:
    warnings: list[str] = []
    bundle = create_request(parse(text), base, model="m", warn=warnings.append, **options)
    assert not warnings
    return bundle


def names(text: str, base: Path) -> set[str]:
    bundle = build(text, base)
    return set(bundle.request.files or {}) | set(bundle.request.adapters or {})


def failure(text: str, base: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        build(text, base, **options)
    return caught.value.message


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


# --- values ---------------------------------------------------------------------------------------


def test_everything_of_a_modelfile_is_sent(tmp_path: Path) -> None:
    put(tmp_path / "ad.gguf", BINARY)
    put(tmp_path / "dr.gguf", BINARY + b"d")
    text = (
        "FROM foo\nTEMPLATE a\nTEMPLATE b\nSYSTEM x\nSYSTEM y\nRENDERER r\nPARSER p\nRENDERER r2\n"
        'LICENSE a\nLICENSE b\nLICENSE """c\nd"""\nMESSAGE user hi\nMESSAGE assistant yo\n'
        "PARAMETER temperature 0.7\nPARAMETER temperature 0.9\n"
        'PARAMETER stop a\nPARAMETER stop "b c"\nREQUIRES v0.14\n'
        "ADAPTER ad.gguf\nDRAFT dr.gguf\n"
    )
    bundle = build(text, tmp_path, quantize="q8_0", draft_quantize="f16")
    assert msgspec.to_builtins(bundle.request) == {
        "model": "m",
        "from": "foo",
        "quantize": "q8_0",
        "draft_quantize": "f16",
        "template": "b",
        "system": "y",
        "renderer": "r2",
        "parser": "p",
        "requires": "0.14",
        "license": ["a", "b", "c\nd"],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "yo"},
        ],
        "parameters": {"temperature": 0.9, "stop": ["a", "b c"]},
        "adapters": {"ad.gguf": digest(BINARY)},
        "draft_files": {"dr.gguf": digest(BINARY + b"d")},
    }
    assert {(upload.path.name, upload.digest, upload.size) for upload in bundle.uploads} == {
        ("ad.gguf", digest(BINARY), 8),
        ("dr.gguf", digest(BINARY + b"d"), 9),
    }


def test_fields_that_are_not_given_are_not_sent(tmp_path: Path) -> None:
    request = build("FROM foo\nSYSTEM \nTEMPLATE \n", tmp_path).request
    assert msgspec.to_builtins(request) == {"model": "m", "from": "foo"}


def test_empty_licences_and_messages_are_sent(tmp_path: Path) -> None:
    request = build("FROM foo\nLICENSE \nMESSAGE user \n", tmp_path).request
    assert request.license == [""]
    assert request.messages is not None
    assert request.messages[0].content == ""


def test_deprecated_parameters_warn_and_are_not_sent(tmp_path: Path) -> None:
    warnings: list[str] = []
    modelfile = parse("FROM x\nPARAMETER mirostat 2\nPARAMETER penalize_newline x\n")
    request = create_request(modelfile, tmp_path, model="m", warn=warnings.append).request
    assert request.parameters is None
    assert warnings == [
        "warning: parameter mirostat is deprecated",
        "warning: parameter penalize_newline is deprecated",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("PARAMETER num_ctx 8 # c", "invalid int value [8 # c]"),
        ("PARAMETER num_gqa 8", "unknown parameter 'num_gqa'"),
        ("PARAMETER model x", "unknown parameter 'model'"),
        ("REQUIRES V1.2.3", "requires must be a valid semver (e.g. 0.14.0)"),
        ("REQUIRES ", "requires must be a valid semver (e.g. 0.14.0)"),
        ("ADAPTER ./nope.gguf", "stat {}/nope.gguf: no such file or directory"),
        ("DRAFT ./nope.gguf", "stat {}/nope.gguf: no such file or directory"),
    ],
)
def test_errors_of_commands(line: str, message: str, tmp_path: Path) -> None:
    assert failure(f"FROM foo\n{line}\n", tmp_path) == message.format(tmp_path)


def test_draft_quantize_needs_a_draft(tmp_path: Path) -> None:
    message = failure("FROM foo\n", tmp_path, draft_quantize="q8_0")
    assert message == "--draft-quantize requires a DRAFT model"


# --- FROM: a path or a name -----------------------------------------------------------------------


def test_the_last_of_several_names_wins(tmp_path: Path) -> None:
    assert build("FROM a\nFROM b\n", tmp_path).request.from_ == "b"


@pytest.mark.parametrize(
    "name", ["llama3", "me/llama3:7b", "hf.co/a/b:Q4", "d/*.gguf", "nope.gguf", "x:cloud"]
)
def test_what_is_not_there_is_a_model_name(name: str, tmp_path: Path) -> None:
    assert build(f"FROM {name}\n", tmp_path).request.from_ == name


@pytest.mark.parametrize("text", ["./nope", "a b.gguf", "../x/a.gguf", "/nope/nope", "~/no.file"])
def test_a_missing_path_is_told_here(text: str, tmp_path: Path) -> None:
    message = failure(f"FROM {text}\n", tmp_path)
    assert message.startswith("stat /")
    assert message.endswith(": no such file or directory")


def test_a_name_below_a_plain_file_is_a_name(tmp_path: Path) -> None:
    put(tmp_path / "me")
    assert build("FROM me/x\n", tmp_path).request.from_ == "me/x"


def test_a_dangling_link_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "llama3").symlink_to("gone")
    assert failure("FROM llama3\n", tmp_path) == (
        f"stat {tmp_path}/llama3: no such file or directory"
    )
    directory = tmp_path / "d"
    put(directory / "model.safetensors")
    (directory / "x.json").symlink_to("gone")
    assert "d/x.json: no such file or directory" in failure("FROM d\n", tmp_path)


def test_a_directory_of_the_name_wins(tmp_path: Path) -> None:
    put(tmp_path / "llama9" / "model.safetensors")
    request = build("FROM llama9\n", tmp_path).request
    assert request.from_ == ""
    assert request.files == {"model.safetensors": digest(b"{}")}


def test_files_and_name_are_both_sent(tmp_path: Path) -> None:
    put(tmp_path / "d" / "a.gguf", BINARY)
    request = build("FROM d/a.gguf\nFROM llama3\n", tmp_path).request
    assert request.files == {"a.gguf": digest(BINARY)}
    assert request.from_ == "llama3"


def test_the_last_adapter_wins(tmp_path: Path) -> None:
    write(tmp_path, **{"a.gguf": BINARY, "b.gguf": BINARY})
    request = build("FROM x\nADAPTER a.gguf\nADAPTER b.gguf\n", tmp_path).request
    assert request.adapters == {"b.gguf": digest(BINARY)}


def test_home_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "x.gguf", BINARY)
    assert names("FROM ~/x.gguf\n", Path("/")) == {"x.gguf"}
    assert failure("FROM ~nouserx/y\n", tmp_path).startswith("failed to find user 'nouserx': ")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("FROM d/a.gguf\nDRAFT d/a.gguf\n", "d/a.gguf"),
        ("DRAFT d/link.gguf\nFROM d/a.gguf\n", "d/a.gguf"),
        ("FROM d\nDRAFT ./d/\n", "d"),
    ],
)
def test_the_draft_is_another_file_than_the_model(text: str, path: str, tmp_path: Path) -> None:
    put(tmp_path / "d" / "a.gguf", BINARY)
    (tmp_path / "d" / "link.gguf").symlink_to("a.gguf")
    assert failure(text, tmp_path) == (
        f"DRAFT must not reference the same local path as FROM: {tmp_path / path}"
    )


# --- directories ----------------------------------------------------------------------------------


def test_safetensors_directory(tmp_path: Path) -> None:
    taken = [
        "model.safetensors",
        "sub/model.safetensors",
        "config.json",
        ".dot.json",
        ".hid/x.json",
        "sub/config.json",
        "chat_template.jinja",
    ]
    for name in (*taken, "consolidated.safetensors", "a/b/c.json", "README.md"):
        put(tmp_path / name, name.encode())
    put(tmp_path / "tokenizer.model", b"\n\x0e\x00")
    (tmp_path / "x.json").mkdir()
    assert names("FROM .\n", tmp_path) == {*taken, "tokenizer.model"}


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        ({"a.gguf": BINARY, "b.gguf": BINARY, "x.json": b"{}"}, {"a.gguf", "b.gguf", "x.json"}),
        ({"x.bin": BINARY}, {"x.bin"}),
        (
            {
                "model.safetensors": b"a",
                "tokenizer.model": b"text",
                "sub/tokenizer.model": b"text",
            },
            {"model.safetensors", "sub/tokenizer.model"},
        ),
        (
            {"a.gguf": BINARY, "chat_template.jinja": b"<!-- x -->"},
            {"a.gguf", "chat_template.jinja"},
        ),
        ({"a.gguf": BINARY, "e.json": b""}, {"a.gguf", "e.json"}),
        ({"pytorch_model.bin": ZIP, "consolidated.00.pth": ZIP}, {"pytorch_model.bin"}),
        ({"consolidated.00.pth": ZIP}, {"consolidated.00.pth"}),
        ({"a.gguf": BINARY, "sub/b.gguf": BINARY}, {"a.gguf"}),
        ({"model.safetensors": b"a", "a.gguf": BINARY}, {"model.safetensors"}),
    ],
)
def test_files_taken(files: dict[str, bytes], taken: set[str], tmp_path: Path) -> None:
    write(tmp_path, **files)
    assert names("FROM .\n", tmp_path) == taken


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no Modelfile or safetensors files found"),
        ({"pytorch_model.bin": b"text"}, "no Modelfile or safetensors files found"),
        ({"a.gguf": b"version https://git-lfs"}, "no Modelfile or safetensors files found"),
        ({"a.gguf": BINARY, "b.gguf": b"text"}, "no Modelfile or safetensors files found"),
        ({"adapter_model.safetensors": b"a"}, "no Modelfile or safetensors files found"),
        (
            {"a.gguf": BINARY, "bad.json": b"\0"},
            "invalid content type: expected application/octet-stream for {}/bad.json",
        ),
    ],
)
def test_directories_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write(tmp_path, **files)
    assert failure('FROM ""\n', tmp_path) == message.format(tmp_path)


def test_adapters_as_training_tools_name_them(tmp_path: Path) -> None:
    write(
        tmp_path / "ad",
        **{"adapter_model.safetensors": b"a", "adapter_config.json": b"{}", "x.bin": BINARY},
    )
    request = build("FROM base\nADAPTER ad\n", tmp_path).request
    assert set(request.adapters or {}) == {"adapter_model.safetensors", "adapter_config.json"}


def test_links_stay_inside(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    put(directory / "model.safetensors")
    real = put(tmp_path / "outside" / "t.json")
    link = directory / "link.json"
    link.symlink_to(real)
    assert failure("FROM d\n", tmp_path) == "insecure path: ../outside/t.json"
    link.unlink()
    link.symlink_to(put(tmp_path / "x" / ".cache" / "t.json"))
    assert failure("FROM d\n", tmp_path) == (
        "insecure path: ../x/.cache/t.json\n\n"
        "Use --local-dir <dir> when downloading model to disable caching"
    )


def test_a_link_and_its_target_are_one_file(tmp_path: Path) -> None:
    write(tmp_path, **{"model.safetensors": b"a", "real.json": b"{}"})
    (tmp_path / "link.json").symlink_to("real.json")
    (tmp_path / "..x.json").write_text("{}")
    assert names("FROM .\n", tmp_path) == {"model.safetensors", "real.json", "..x.json"}


def test_a_directory_name_is_no_pattern(tmp_path: Path) -> None:
    put(tmp_path / "d[1]" / "a.gguf", BINARY)
    put(tmp_path / "d1" / "b.gguf", BINARY)
    assert names("FROM d[1]\n", tmp_path) == {"a.gguf"}


def test_pipes_are_not_read(tmp_path: Path) -> None:
    put(tmp_path / "a.gguf", BINARY)
    os.mkfifo(tmp_path / "x.json")
    assert names("FROM .\n", tmp_path) == {"a.gguf"}


def test_unreadable_files_are_errors_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.gguf", BINARY)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert failure("FROM a.gguf\n", tmp_path) == f"open {path}: permission denied"


def test_a_file_name_that_json_cannot_carry_is_told(tmp_path: Path) -> None:
    put(tmp_path / "d" / os.fsdecode(b"\xff.gguf"), BINARY)
    assert failure("FROM d\n", tmp_path) == r"file name is not valid UTF-8: b'\xff.gguf'"


@pytest.mark.parametrize(
    ("paths", "sent"),
    [
        (["/m/a.gguf"], ["a.gguf"]),
        (["/m/a.gguf", "/m/b.gguf"], ["a.gguf", "b.gguf"]),
        (["/m/x/a.gguf", "/m/y/a.gguf"], ["x/a.gguf", "y/a.gguf"]),
        (["/m/config.json", "/m/1_P/config.json"], ["config.json", "1_P/config.json"]),
        (["/a/x.gguf", "/b/x.gguf"], ["a/x.gguf", "b/x.gguf"]),
        (["/m/x/a.gguf", "/m/x/y/z/b.json"], ["a.gguf", "y/z/b.json"]),
        (["/a.gguf", "/b/c.gguf"], ["a.gguf", "b/c.gguf"]),
        ([], []),
    ],
)
def test_names_sent(paths: list[str], sent: list[str]) -> None:
    assert list(names_sent(paths).values()) == sent


def test_patterns_match_single_levels() -> None:
    listing = ["a.json", "d/a.json", ".x.json", "d/e/a.json"]
    assert matching(listing, "*.json") == [".x.json", "a.json"]
    assert matching(listing, "*/*.json") == ["d/a.json"]


def test_choosing_needs_no_files() -> None:
    kinds = {"a.gguf": "application/octet-stream", "c.json": "text/plain"}
    assert choose(list(kinds), kinds.__getitem__, Path("/d")) == ["a.gguf", "c.json"]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "text/plain"),
        (b"\xef\xbb\xbf{}", "text/plain"),
        (b"{}\x1b[0m", "text/plain"),
        (b"caf\xe9", "text/plain"),
        (b"a\x00", "application/octet-stream"),
        (b"  <!-- x", "text/html"),
        (b"<html>", "text/html"),
        (b"<?xml ?>", "text/xml"),
        (ZIP, "application/zip"),
        (b"RIFF1234WAVE", "audio/wave"),
        (b"%PDF-1", "application/pdf"),
        (b"a" * 512 + b"\0", "text/plain"),
    ],
)
def test_content_types(head: bytes, kind: str) -> None:
    assert content_type(head) == kind


def test_an_error_stops_the_other_hashers(tmp_path: Path) -> None:
    good = put(tmp_path / "a", b"x")
    before = threading.active_count()
    with pytest.raises(FileNotFoundError):
        digests_of([tmp_path / "gone", good])
    assert threading.active_count() == before
