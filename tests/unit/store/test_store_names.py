"""Names and references: the tables of registry-and-store 1 and 10.1 to 10.6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.errors import BadRequest
from ollamad.store.names import (
    MISSING,
    Name,
    Reference,
    existing_spelling,
    is_valid_part,
    parse_reference,
)

P80 = "8" * 80
H350 = "3" * 350
LONG = "himynameisreallyreallyreallyreallylongbutitshouldstillbevalid"


def bare(text: str) -> tuple[str, str, str, str, str]:
    name = Name.parse_bare(text)
    return (name.scheme, name.host, name.namespace, name.model, name.tag)


@pytest.mark.parametrize(
    ("text", "parts", "path"),
    [
        (
            "registry.ollama.ai/library/dolphin-mistral:7b-v2.6-dpo-laser-q6_K",
            ("", "registry.ollama.ai", "library", "dolphin-mistral", "7b-v2.6-dpo-laser-q6_K"),
            "registry.ollama.ai/library/dolphin-mistral/7b-v2.6-dpo-laser-q6_K",
        ),
        (
            "scheme://host:port/namespace/model:tag",
            ("scheme", "host:port", "namespace", "model", "tag"),
            "host:port/namespace/model/tag",
        ),
        (
            "host/namespace/model:tag",
            ("", "host", "namespace", "model", "tag"),
            "host/namespace/model/tag",
        ),
        (
            "host:port/namespace/model:tag",
            ("", "host:port", "namespace", "model", "tag"),
            "host:port/namespace/model/tag",
        ),
        (
            "host/namespace/model",
            ("", "host", "namespace", "model", ""),
            "host/namespace/model/latest",
        ),
        (
            "host:port/namespace/model",
            ("", "host:port", "namespace", "model", ""),
            "host:port/namespace/model/latest",
        ),
        (
            "namespace/model",
            ("", "", "namespace", "model", ""),
            "registry.ollama.ai/namespace/model/latest",
        ),
        ("model", ("", "", "", "model", ""), "registry.ollama.ai/library/model/latest"),
        ("h/nn/mm:t", ("", "h", "nn", "mm", "t"), "h/nn/mm/t"),
        (
            f"{P80}/{P80}/{P80}:{P80}",
            ("", P80, P80, P80, P80),
            f"{P80}/{P80}/{P80}/{P80}",
        ),
        (
            f"{H350}/{P80}/{P80}:{P80}",
            ("", H350, P80, P80, P80),
            f"{H350}/{P80}/{P80}/{P80}",
        ),
        ("HTTP://h/n/m:t", ("HTTP", "h", "n", "m", "t"), "h/n/m/t"),
        ("https:///n/m", ("https", "", "n", "m", ""), "registry.ollama.ai/n/m/latest"),
        ("://h/n/m", ("", "h", "n", "m", ""), "h/n/m/latest"),
        ("h:p:q/n/m:t", ("", "h:p:q", "n", "m", "t"), "h:p:q/n/m/t"),
        ("h./n/m.m:t.t", ("", "h.", "n", "m.m", "t.t"), "h./n/m.m/t.t"),
        ("sha256:abc", ("", "", "", "sha256", "abc"), "registry.ollama.ai/library/sha256/abc"),
    ],
)
def test_parts_and_path(text: str, parts: tuple[str, ...], path: str) -> None:
    assert bare(text) == parts
    assert Name.parse(text).is_valid
    assert Name.parse(text).relative_path == path


@pytest.mark.parametrize(
    "text",
    [
        "_why/_the/_lucky:_stiff",
        "h/n/m:t",
        "h/nn/mm:t",
        "host/namespace/model:tag",
        "host:https/namespace/model:tag",
        f"{P80}/{P80}/{P80}:{P80}",
        f"{H350}/{P80}/{P80}:{P80}",
    ],
)
def test_complete_names_are_valid_and_print_back(text: str) -> None:
    assert Name.parse_bare(text).is_valid
    assert Name.parse_bare(text).full == text


@pytest.mark.parametrize(
    "text",
    ["", "m", "model", "h/n/m", "namespace/model", "host/namespace/model"],
)
def test_parts_missing_without_defaults(text: str) -> None:
    assert not Name.parse_bare(text).is_valid


INVALID = [
    "",
    *["n/m:", "mm:", "/nn/mm", "//", "//mm", "hh//", "//mm:@", "@t", "m@d", "00@", "@", "^"],
    *["-hh/nn/mm:tt", "hh/-nn/mm:tt", "hh/nn/-mm:tt", "hh/nn/mm:-tt", "host/name:space/model:tag"],
    *["x://y://h/n/m", "h/n/m:t:u", "a:b:c", ":t", "m:t/x", "h//m", "/n/m", "./n/m", "h/n.n/m"],
    *[" m", "h/n/m:t ", "h/n/m\n", "h/n/m:t\n", "h/n/mé", "m:latest@sha256:" + "0" * 64],
    *["3" * 351 + "/n/m:t", "h/" + "8" * 81 + "/m:t", "localhost:5000/m", "http://h/m", "http://m"],
    *["a/b/c/d", "..", "../../etc/passwd", "h/n/..:t", "h/n/m:..", "a\\b", "a%2fb", "m\x00", "ｍ"],
    *["h/../m", "../n/m", "h/n/.hidden", "٣"],
]


@pytest.mark.parametrize("text", INVALID)
def test_invalid_even_with_defaults(text: str) -> None:
    name = Name.parse(text)
    assert not name.is_valid
    with pytest.raises(BadRequest, match=r"^invalid model name$"):
        _ = name.relative_path


def test_missing_parts_are_marked() -> None:
    assert bare("http://m") == ("", "http:", MISSING, "m", "")
    assert bare("http://h/m") == ("", "http:/", "h", "m", "")
    assert bare("a/b/c/d") == ("", "a/b", "c", "d", "")
    assert bare(":t") == ("", "", "", MISSING, "t")


def test_full_form() -> None:
    assert Name.parse("xx").full == "registry.ollama.ai/library/xx:latest"
    assert str(Name.parse("http://h:1/n/m")) == "h:1/n/m:latest"
    assert Name.parse("m@d").full == "registry.ollama.ai/library/m@d:latest"
    assert Name.parse("::").full == "registry.ollama.ai/library/::!MISSING!"
    assert Name.parse("a/b/c/d").full == "a/b/c/d:latest"


def test_registry_forms() -> None:
    name = Name.parse("http://localhost:5000/acme/tiny:q4")
    assert (name.scheme, name.host) == ("http", "localhost:5000")
    assert name.repository == "acme/tiny"
    default = Name.parse("m")
    assert (default.scheme, default.host) == ("https", "registry.ollama.ai")


@pytest.mark.parametrize(
    ("kind", "text", "valid"),
    [
        ("host", "", False),
        *[("host", text, True) for text in ("a", "a.", "a.b", "a:123")],
        ("host", "a:123/aa/bb", False),
        *[("namespace", text, True) for text in ("bb", "a", "himynameisjoe", LONG)],
        *[("namespace", text, False) for text in ("", "a.", "a:b", "a/b", "a:b/c", "a/b:c/d@e")],
        ("model", "-h", False),
        ("digest", "sha256-1" + "0" * 63, True),
        ("digest", "sha256:" + "1" * 73, True),
        ("digest", "sha256:" + "1" * 74, False),
        ("model", "a:b", False),
        ("tag", "a:b", False),
    ],
)
def test_part_validity(kind: str, text: str, valid: bool) -> None:
    assert is_valid_part(kind, text) is valid  # type: ignore[arg-type]


def test_reverse_of_file_paths() -> None:
    assert Name.from_relative_path("host/namespace/model/tag") == Name.parse(
        "host/namespace/model:tag"
    )
    assert Name.from_relative_path("host:port/namespace/model/tag") == Name.parse(
        "host:port/namespace/model:tag"
    )
    for path in [
        *["namespace/model/tag", "model/tag", "model", "../../model/tag", "/namespace/./tag"],
        *["./././.", "/path/to/random/file", "a/b/c/d/e", "host/namespace/model/", "//x/y"],
        *["host/na.me/model/tag", "", "host/namespace/model/.hidden"],
    ]:
        assert Name.from_relative_path(path) is None, path


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("registry.ollama.ai/library/model:latest", "model:latest"),
        ("registry.ollama.ai/library/model:tag", "model:tag"),
        ("registry.ollama.ai/namespace/model:tag", "namespace/model:tag"),
        ("host/namespace/model:tag", "host/namespace/model:tag"),
        ("host/library/model:tag", "host/library/model:tag"),
        ("REGISTRY.ollama.ai/Library/Model:Latest", "Model:Latest"),
        ("registry.ollama.ai:443/library/m:t", "registry.ollama.ai:443/library/m:t"),
        ("llama3", "llama3:latest"),
        ("hf.co/bartowski/X-GGUF:Q4_K_M", "hf.co/bartowski/X-GGUF:Q4_K_M"),
    ],
)
def test_short_form(full: str, short: str) -> None:
    assert Name.parse(full).short == short


part = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,10}", fullmatch=True)


@given(part, part, part, part)
def test_every_valid_name_comes_back_from_each_of_its_forms(h: str, n: str, m: str, t: str) -> None:
    name = Name(h, n, m, t)
    assert Name.parse(name.full) == name
    assert Name.parse_bare(name.full) == Name(h, n, m, t, scheme="")
    assert Name.from_relative_path(name.relative_path) == name
    assert Name.parse(name.short).folded == name.folded


@given(st.text(alphabet="aA0._-:/@!é\n ", max_size=24))
def test_no_text_becomes_a_path_outside(text: str) -> None:
    name = Name.parse(text)
    if name.is_valid:
        parts = name.relative_path.split("/")
        assert len(parts) == 4
        assert all(part and part not in (".", "..") for part in parts)
        assert name.relative_path.isascii()


@pytest.mark.parametrize(
    ("raw", "base", "source", "stored"),
    [
        ("gpt-oss:20b:cloud", "gpt-oss:20b", "cloud", "gpt-oss:20b-cloud"),
        ("gpt-oss:20b:CLOUD", "gpt-oss:20b", "cloud", "gpt-oss:20b-cloud"),
        ("gpt-oss:20b-cloud", "gpt-oss:20b", "cloud", "gpt-oss:20b-cloud"),
        ("qwen3:cloud", "qwen3", "cloud", "qwen3:cloud"),
        (
            "localhost:11434/library/foo:cloud",
            "localhost:11434/library/foo",
            "cloud",
            "localhost:11434/library/foo:cloud",
        ),
        ("qwen3:8b:local", "qwen3:8b", "local", "qwen3:8b"),
        ("gpt-oss:20b:local", "gpt-oss:20b", "local", "gpt-oss:20b"),
        ("llama3.2", "llama3.2", "unspecified", "llama3.2"),
        ("my-cloud-model", "my-cloud-model", "unspecified", "my-cloud-model"),
        ("gpt-oss:clod", "gpt-oss:clod", "unspecified", "gpt-oss:clod"),
        ("foo:bar-cloud/baz", "foo:bar-cloud/baz", "unspecified", "foo:bar-cloud/baz"),
        ("m:latest-CLOUD", "m:latest", "cloud", "m:latest-cloud"),
        ("  m: cloud ", "m", "cloud", "m:cloud"),
        ("\u00a0m\u2003", "m", "unspecified", "m"),
        ("h:1/n/m-cloud", "h:1/n/m-cloud", "unspecified", "h:1/n/m-cloud"),
        ("a/b-cloud", "a/b-cloud", "unspecified", "a/b-cloud"),
        ("foo-cloud", "foo-cloud", "unspecified", "foo-cloud"),
        ("::cloud", ":", "cloud", ":-cloud"),
        ("m:-cloud", "m:", "cloud", "m:-cloud"),
    ],
)
def test_source_suffixes(raw: str, base: str, source: str, stored: str) -> None:
    reference = parse_reference(raw)
    assert (reference.base, reference.source) == (base, source)
    assert reference.stored_text == stored


@pytest.mark.parametrize("raw", ["::cloud", "m:-cloud"])
def test_suffix_on_no_name(raw: str) -> None:
    reference = parse_reference(raw)
    assert not Name.parse(reference.base).is_valid
    assert not Name.parse(reference.stored_text).is_valid


@pytest.mark.parametrize(
    "raw",
    ["foo:cloud:local", "foo:cloud:cloud", "foo:local:local", "foo:cloud-cloud", "f:2-cloud-cloud"],
)
def test_two_suffixes(raw: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_reference(raw)
    assert caught.value.message == f'use either :local or :cloud, not both: "{raw}"'


@pytest.mark.parametrize("raw", ["", "   ", "\t\n"])
def test_no_model(raw: str) -> None:
    with pytest.raises(BadRequest, match=r"^model is required$"):
        parse_reference(raw)


@pytest.mark.parametrize(
    ("base", "tagged"),
    [
        ("some-model", False),
        ("some-model:9b", True),
        ("some-model:latest", True),
        ("user/some-model", False),
        ("user/some-model:9b", True),
        ("registry.example.com:5000/some-model", False),
        ("registry.example.com:5000/some-model:9b", True),
    ],
)
def test_explicit_tags_decide_where_cloud_goes(base: str, tagged: bool) -> None:
    suffix = "-cloud" if tagged else ":cloud"
    assert Reference("cloud", base).stored_text == base + suffix


def spelled(name: str, *stored: str) -> str:
    return existing_spelling(Name.parse(name), [Name.parse(other) for other in stored]).full


def test_existing_spelling() -> None:
    assert spelled("fOO/BAR", "Foo/bar") == "registry.ollama.ai/Foo/bar:latest"
    assert spelled("new", "Foo/bar") == "registry.ollama.ai/library/new:latest"
    # Exactly stored wins over another spelling of the same name.
    assert spelled("foo", "FOO", "foo") == "registry.ollama.ai/library/foo:latest"
    # Among several others the smallest wins, whatever the order of enumeration.
    assert spelled("foO", "foo", "FOO") == "registry.ollama.ai/library/FOO:latest"
    assert spelled("foO", "FOO", "foo") == "registry.ollama.ai/library/FOO:latest"


def test_existing_spelling_by_part() -> None:
    assert spelled("h2/ns/Mixed", "H2/Ns/Md:Tg") == "H2/Ns/Mixed:latest"
    # A part that some model has exactly stays, although another model spells it differently.
    assert spelled("h/ns/new", "H/NS/a", "h/Ns/b") == "h/NS/new:latest"


def test_existing_spelling_keeps_the_scheme_and_invalid_names() -> None:
    found = existing_spelling(Name.parse("http://H/n/m"), [Name.parse("h/n/m")])
    assert (found.scheme, found.full) == ("http", "h/n/m:latest")
    assert spelled("A@B", "a@b") == "registry.ollama.ai/library/A@B:latest"
