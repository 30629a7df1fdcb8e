"""The decisions of create, without files."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.create.checks import is_clean_relative_path
from ollamad.create.kinds import gguf_names, kind_of_files
from ollamad.create.layers import PlannedLayer, TextLayer, Weights, rewrite_of, text_layer
from ollamad.create.origin import (
    CLOUD_HOST,
    Files,
    RemoteBase,
    StoredBase,
    normal_remote_host,
    origin_of,
)
from ollamad.create.space import MARGIN, missing_space
from ollamad.create.split import GroupKey, Part, SplitError, SplitInfo, check_part, ordered_parts
from ollamad.create.texts import (
    licenses_of,
    merged_parameters,
    messages_content,
    parameters_content,
    with_texts,
)
from ollamad.errors import BadRequest, OllamadError
from ollamad.store.manifest import (
    MEDIA_DRAFT,
    MEDIA_LICENSE,
    MEDIA_MODEL,
    MEDIA_SYSTEM,
    MEDIA_TEMPLATE,
)
from ollamad.store.model import parse_messages, parse_params
from ollamad.store.names import Name
from ollamad.wire import CreateRequest, Message, ToolCall, ToolCallFunction


@pytest.mark.parametrize("path", ["a", "a/b.gguf", ".", ".hidden", "a..b", "日本/x", "a\\b", " "])
def test_clean_paths(path: str) -> None:
    assert is_clean_relative_path(path)


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", "./a", "a/.", "..", "a/../b", "../a", "\udcff"]
)
def test_other_paths(path: str) -> None:
    assert not is_clean_relative_path(path)


# --- origin ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("example.com", "http://example.com:11434"),
        ("example.com:80", "http://example.com:80"),
        ("https://example.com", "https://example.com:11434"),
        ("https://example.com:443/", "https://example.com:443"),
        ("http://example.com/a/../b/", "http://example.com:11434/b"),
        ("ollama.com", "https://ollama.com:443"),
        ("http://ollama.com", "https://ollama.com:443"),
        ("https://ollama.com:443", "https://ollama.com:443"),
        ("/", "http://localhost:11434"),
        ("/a//b", "http://localhost:11434/a/b"),
        ("http://", "http://localhost:11434"),
        (":8080", "http://localhost:8080"),
        ("http://:8080/x", "http://localhost:8080/x"),
        ("[::1]", "http://[::1]:11434"),
        ("http://[::1]:1", "http://[::1]:1"),
    ],
)
def test_remote_hosts(text: str, url: str) -> None:
    assert normal_remote_host(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://a b",
        "a\nb",
        "a:port",
        "a:99999",
        "http://[::1",
        "http://user:secret@a",
        "a?x=1",
        "a#x",
        "a/\x00",
        "ä.example",
    ],
)
def test_bad_remote_hosts(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^bad remote$"):
        normal_remote_host(text)


def test_origins() -> None:
    def of(**fields: Any) -> object:
        return origin_of(CreateRequest(**fields))

    assert of(from_="x") == StoredBase(Name.parse("x:latest"))
    assert of(from_=" x:local ", files={"a": "b"}) == StoredBase(Name.parse("x"))
    assert of(from_="x:7b-cloud") == RemoteBase(CLOUD_HOST, "x:7b")
    assert of(from_="x:1", remote_host="h") == RemoteBase("http://h:11434", "x:1")
    assert of(files={}) == Files({})


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "kind"),
    [
        ({"a.gguf": b"", "b.safetensors": b""}, "safetensors"),
        ({"a.gguf": b"text"}, "gguf"),
        ({"a": b"text", "b": b"GGUF"}, "gguf"),
        ({"a": b"FUGG"}, "gguf"),
    ],
)
def test_kinds(heads: dict[str, bytes], kind: str) -> None:
    for names in permutations(heads):
        assert kind_of_files({name: name for name in names}, heads.__getitem__) == kind


@pytest.mark.parametrize("heads", [{}, {"a.GGUF": b"gguf", "x.safetensors.json": b"{}"}])
def test_unknown_kinds(heads: dict[str, bytes]) -> None:
    with pytest.raises(BadRequest, match="unknown type"):
        kind_of_files({name: name for name in heads}, heads.__getitem__)


def test_what_is_read_as_gguf() -> None:
    assert gguf_names(["b.gguf", "a", "c.json", "d/tokenizer.model"]) == ["a", "b.gguf"]
    assert gguf_names(["a.md"]) == ["a.md"]


@given(st.permutations(range(5)), st.integers(2, 5))
def test_parts_in_any_order_are_put_in_order(order: list[int], count: int) -> None:
    parts = [Part(f"p{index}", index, 1, count) for index in order if index < count]
    assert [p.index for p in ordered_parts(GroupKey("p", count), parts)] == list(range(count))


def test_part_names() -> None:
    assert check_part("d/a-b-00002-of-00003.gguf", SplitInfo(1, 3)) == GroupKey("a-b", 3)
    for name in ("m-1-of-2.gguf", "m-00001-of-00002.GGUF", "m-00001-of-00002.gguf\n"):
        with pytest.raises(SplitError, match="must use llama"):
            check_part(name, SplitInfo(0, 2))


def layer(media_type: str = MEDIA_MODEL, **fields: Any) -> PlannedLayer:
    weights = {
        name: fields.pop(name)
        for name in ("file_type", "lacks_projector_type", "has_embedded_tensors")
        if name in fields
    }
    return PlannedLayer(
        media_type=media_type,
        digest="d",
        size=1,
        status="",
        weights=Weights(architecture="llama", **weights),
        **fields,
    )


def test_rewrites() -> None:
    assert rewrite_of(layer()) == "none"
    assert rewrite_of(layer(imported=True)) == "validate"
    assert rewrite_of(layer(imported=True, parts=("a", "b"))) == "merge"
    assert rewrite_of(layer(MEDIA_DRAFT, file_type="Q4_K_M"), quantize="q8_0") == "none"
    assert rewrite_of(layer(file_type="BF16"), quantize="bf16") == "none"
    with pytest.raises(OllamadError, match="got Q4_K_M"):
        rewrite_of(layer(MEDIA_DRAFT, file_type="Q4_K_M"), "", "q4_k_m")


def test_space() -> None:
    assert missing_space(10, MARGIN + 10) is None
    assert missing_space(11, MARGIN + 10) is not None


# --- texts ----------------------------------------------------------------------------------------


def test_licenses() -> None:
    assert licenses_of(None) == []
    assert licenses_of("") == []
    assert licenses_of("a") == ["a"]
    assert licenses_of(["a", "", None]) == ["a", "", ""]


def test_texts_replace_and_licenses_add_up() -> None:
    present = [
        layer(),
        text_layer(TextLayer(MEDIA_TEMPLATE, b"t")),
        text_layer(TextLayer(MEDIA_LICENSE, b"l")),
        text_layer(TextLayer(MEDIA_SYSTEM, b"s")),
    ]
    new = [TextLayer(MEDIA_SYSTEM, b"s2")]
    new += [TextLayer(MEDIA_LICENSE, text) for text in (b"l", b"l2", b"l2")]
    final = with_texts(present, new)
    assert [item.text.content if item.text else b"" for item in final] == [
        b"",
        b"t",
        b"l",
        b"s2",
        b"l2",
    ]


def test_the_first_of_several_params_layers_wins() -> None:
    merged = merged_parameters({"a": 1}, [{"a": 2, "b": 2}, {"b": 3, "c": 3}], [])
    assert merged == {"a": 1, "b": 2, "c": 3}


json_keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
#: Integral floats are written as integers, and so read as such.
json_floats = st.floats(-(2.0**53), 2.0**53).filter(lambda value: value != 0)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | json_floats | json_keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(json_keys, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(json_keys, json_values, max_size=3))
def test_parameters_are_read_as_they_were_written(parameters: dict[str, Any]) -> None:
    content = parameters_content(parameters)
    assert content.endswith(b"\n")
    assert not {b"<", b">", b"&"} & {content[i : i + 1] for i in range(len(content))}
    assert parse_params(content) == parameters
    assert json.loads(content) == parameters
    assert parameters_content(parse_params(content)) == content


def test_all_of_a_message_is_kept() -> None:
    message = Message(
        role="Assistant",
        content="c",
        thinking="t",
        images=[b"\xff"],
        tool_calls=[
            ToolCall(
                id="1", function=ToolCallFunction(index=0, name="f", arguments={"b": 1, "a": 2})
            )
        ],
        tool_name="n",
        tool_call_id="i",
    )
    content = messages_content([message])
    assert content == (
        b'[{"role":"assistant","content":"c","thinking":"t","images":["/w=="],'
        b'"tool_calls":[{"id":"1","function":{"index":0,"name":"f","arguments":{"b":1,"a":2}}}],'
        b'"tool_name":"n","tool_call_id":"i"}]\n'
    )
    message.role = "assistant"
    assert parse_messages(content) == (message,)
