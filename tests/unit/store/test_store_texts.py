"""Digests, and the JSON of manifests and configs to the byte (2.2 to 2.4, 9.2, 10.7)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import CONFIG

from ollamad.errors import BadRequest
from ollamad.store.config import EMPTY_CONFIG, ConfigBlob, encode_config, parse_config
from ollamad.store.digests import blob_filename, digest_of_filename, is_digest
from ollamad.store.errors import ManifestError
from ollamad.store.json_text import decode_first, encode, number
from ollamad.store.manifest import (
    MEDIA_CONFIG,
    MEDIA_MODEL,
    MEDIA_PARAMS,
    MEDIA_TEMPLATE,
    MEDIA_TENSOR,
    Layer,
    Manifest,
    encode_manifest,
    parse_manifest,
    stored_manifest,
)
from ollamad.wire import Message

ZEROS = "0" * 64
TINY = Manifest(
    config=Layer(
        media_type=MEDIA_CONFIG,
        digest="sha256:99759ad5b91e723db0393d698ffbb448b1b7df5ff6377a108c49254583b1bc8c",
        size=147,
    ),
    layers=(
        Layer(
            media_type=MEDIA_MODEL,
            digest="sha256:086d4a1c293bde318dc1fec9a21b9d828ba7637bcbdc5cdb42662fd84b733e9f",
            size=250,
        ),
        Layer(
            media_type=MEDIA_TEMPLATE,
            digest="sha256:fe7ac77b725cda2ccad03f88a880ecdfd7a33192d6cae08fce2c0ee1455991ed",
            size=27,
        ),
        Layer(
            media_type=MEDIA_PARAMS,
            digest="sha256:e29a7b3c47287a2489c895d21fe413c20f859a85d20e749492f52a838e36e1ba",
            size=73,
        ),
    ),
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- digests --------------------------------------------------------------------------------------


def test_digest_file_names() -> None:
    assert blob_filename("sha256:" + ZEROS) == "sha256-" + ZEROS
    assert blob_filename("sha256-" + "aB" * 32) == "sha256-" + "aB" * 32
    assert digest_of_filename("sha256-" + ZEROS) == "sha256:" + ZEROS
    assert digest_of_filename(f"sha256-{ZEROS}-partial") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:" + ZEROS + "\n",
        "sha256:" + ZEROS[1:],
        "sha256:" + ZEROS + "0",
        "sha256:" + "g" * 64,
        "sha512:" + ZEROS,
        "SHA256:" + ZEROS,
        " sha256:" + ZEROS,
        "sha256:../../../../../../etc/passwd",
        "sha256:" + "/../" * 16,
        "sha256/" + ZEROS,
        "sha256:" + "０" * 64,
    ],
)
def test_not_a_digest(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(BadRequest, match=r"^invalid digest format$"):
        blob_filename(text)


# --- what is written ------------------------------------------------------------------------------


def test_the_worked_example_has_the_references_digests() -> None:
    assert (len(CONFIG), sha256(CONFIG)) == (147, TINY.config.digest[7:])
    raw = encode_manifest(TINY)
    assert len(raw) == 701
    stored = stored_manifest(raw, 5)
    assert stored.digest == "01d4b36c8d9e4b6815cec4706d326e7b07dbb9c57b37321720b8dc5c7147a48c"
    assert (stored.size, stored.modified_at_ns, stored.manifest) == (497, 5, TINY)
    # As a registry returns it: without the newline the digest differs, the content does not.
    pushed = stored_manifest(raw[:-1], 5)
    assert pushed.digest == "79e3a54b74d4d2960b378009489a6c0dff8088616f6c02c0ee3511c3452e6f7f"
    assert pushed.manifest == TINY


def test_layers_keys_in_order_and_left_out() -> None:
    inherited = Layer(media_type=MEDIA_MODEL, digest="d", size=250, from_="llama3.2:latest")
    tensor = Layer(media_type=MEDIA_TENSOR, digest="d", size=1, name="model.layers.0.weight")
    raw = encode_manifest(Manifest(layers=(inherited, tensor)))
    assert b'{"mediaType":"' + MEDIA_MODEL.encode() + b'","digest":"d","size":250,"from":"' in raw
    assert b'"size":1,"name":"model.layers.0.weight"}]}\n' in raw
    assert raw.startswith(b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution')
    assert encode_manifest(Manifest()).endswith(
        b'"config":{"mediaType":"","digest":"","size":0},"layers":null}\n'
    )


def test_config_of_a_cloud_stub() -> None:
    expected = (
        b'{"model_format":"","model_family":"gptoss","model_families":["gptoss"],'
        b'"model_type":"20.9B","file_type":"MXFP4","remote_host":"https://ollama.com:443",'
        b'"remote_model":"gpt-oss:20b","capabilities":["completion","tools","thinking"],'
        b'"context_length":131072,"embedding_length":2880,"architecture":"amd64","os":"linux"}\n'
    )
    config = parse_config(expected)
    assert config.is_remote
    assert encode_config(config) == expected


@pytest.mark.parametrize(
    ("value", "text", "digest"),
    [
        (
            {"top_k": 10.0, "temperature": 1.0, "stop": ["USER:", "ASSISTANT:"]},
            '{"stop":["USER:","ASSISTANT:"],"temperature":1,"top_k":10}',
            "1d0ad71299d48c2fb7ae2b98e683643e771f8a5b72be34942af90d97a91c1e37",
        ),
        (
            {"stop": ["<|endoftext|>"], "temperature": 0.6, "top_k": 10, "top_p": 0.7},
            '{"stop":["\\u003c|endoftext|\\u003e"],"temperature":0.6,"top_k":10,"top_p":0.7}',
            "12f58bb75cb3042d69a7e013ab87fb3c3c7088f50ddc62f0c77bd332f0d44d35",
        ),
        (
            {"top_p": 0.7, "top_k": 10, "temperature": 0.6, "stop": ["USER:", "ASSISTANT:"]},
            '{"stop":["USER:","ASSISTANT:"],"temperature":0.6,"top_k":10,"top_p":0.7}',
            "e29a7b3c47287a2489c895d21fe413c20f859a85d20e749492f52a838e36e1ba",
        ),
    ],
)
def test_params_blobs(value: dict[str, Any], text: str, digest: str) -> None:
    raw = encode(value, sort_keys=True) + b"\n"
    assert raw == text.encode() + b"\n"
    assert sha256(raw) == digest


def test_messages_blobs() -> None:
    def digest(*messages: tuple[str, str]) -> str:
        return sha256(
            encode([Message(role=role, content=content) for role, content in messages]) + b"\n"
        )

    assert digest(
        ("assistant", "What is my purpose?"),
        ("user", "You run tests."),
        ("assistant", "Oh, my god."),
    ) == ("298baeaf6928a60cf666d88d64a1ba606feb43a2865687c39e40652e407bffc4")
    assert digest(
        ("assistant", "You're a test, Harry."),
        ("user", "I-I'm a what?"),
        ("assistant", "A test. And a thumping good one at that, I'd wager."),
    ) == ("a60ecc9da299ec7ede453f99236e5577fd125e143689b646d9f0ddc9971bf4db")
    assert digest(("user", "a<b>&é\u2028")) == (
        "5eb81618ee8e707fc8c39aee4305666ee6b61fcb545c8d53a73730686c3a052a"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-100.0, "-100"),
        (0.1, "0.1"),
        (0.000001, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"),
        (1e20, "100000000000000000000"),
        (123456789012345678901.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (-1.25e300, "-1.25e+300"),
        (5e-324, "5e-324"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
    assert encode([value]) == f"[{text}]".encode()


def test_integers_stay_exact() -> None:
    assert encode([2**53 + 1, -(2**63), 2**63]) == (
        b"[9007199254740993,-9223372036854775808,9223372036854775808]"
    )


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back(value: float) -> None:
    assert float(number(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks(value: float) -> None:
    with pytest.raises(ValueError, match="unsupported value"):
        encode([value])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_written_json_reads_back(value: Any) -> None:
    raw = encode(value)
    assert decode_first(raw) == value
    assert not set(raw.decode()) & set("<>&\u2028\u2029")


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"{bad", "invalid character 'b' looking for beginning of object key string"),
        (b"", "EOF"),
        (b"  \n", "EOF"),
        (b'{"a":', "unexpected EOF"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b'"a\nb"', "invalid character '\\n' in string literal"),
        (b'"\\x"', "invalid character 'x' in string escape code"),
        (b'"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"),
        (b"-x", "invalid character 'x' in numeric literal"),
        (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
        (b"1ex", "invalid character 'x' in exponent of numeric literal"),
        (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
        (b"NaN", "invalid character 'N' looking for beginning of value"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b"'", "invalid character '\\'' looking for beginning of value"),
        (b"[" * 20_000, "exceeded max depth"),
    ],
)
def test_syntax_errors(raw: bytes, text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        decode_first(raw)
    assert caught.value.message == text
    assert caught.value.status == 500


def test_only_the_first_value_counts() -> None:
    assert decode_first(b' {"a":[1,{"b":"]}"}]} trailing \xff') == {"a": [1, {"b": "]}"}]}
    assert decode_first(b'[] "x"') == []
    assert decode_first(b"-0.5e+1 x") == -5
    assert decode_first(b'"a\\"b" x') == 'a"b'


def test_broken_text_is_repaired() -> None:
    assert decode_first(b'["\\ud800x","a\xff","\\ud83d\\ude00"]') == ["\ufffdx", "a\ufffd", "😀"]


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:\\u0e1.-+ntf \n', max_size=40))
def test_hostile_bytes_give_a_value_or_the_one_error(raw: bytes | str) -> None:
    raw = raw.encode() if isinstance(raw, str) else raw
    try:
        value = decode_first(raw)
    except ManifestError:
        with pytest.raises(ValueError):
            json.loads(raw.decode("utf-8", "replace"), parse_constant=_refuse)
    else:
        encode(value)


def _refuse(text: str) -> None:
    raise ValueError(text)


def test_manifests_are_read_leniently() -> None:
    manifest = parse_manifest(
        b'{"SchemaVersion":1,"LAYERS":[{"Digest":"sha256:x","SIZE":5,"unknown":{}},null],"x":[]}'
    )
    assert manifest.schema_version == 1
    assert manifest.media_type == ""
    assert [(layer.digest, layer.size) for layer in manifest.layers] == [("sha256:x", 5), ("", 0)]
    assert manifest.size == 5
    assert list(manifest.references()) == ["sha256:x"]


def test_exact_keys_come_first() -> None:
    layer = parse_manifest(b'{"layers":[{"SIZE":1,"size":2}]}').layers[0]
    assert layer.size == 2


def test_trailing_text_counts_for_the_digest_only() -> None:
    raw = b'{"layers":null} {"x":1} trailing\n'
    stored = stored_manifest(raw, 0)
    assert stored.manifest.layers == ()
    assert stored.digest == sha256(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b'"x"',
        b'{"layers":{}}',
        b'{"layers":[1]}',
        b'{"layers":[{"size":"1"}]}',
        b'{"layers":[{"size":1.5}]}',
        b'{"layers":[{"size":true}]}',
        b'{"layers":[{"size":9223372036854775808}]}',
        b'{"layers":[{"digest":1}]}',
        b'{"config":[]}',
    ],
)
def test_manifests_of_the_wrong_shape(raw: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^json: cannot unmarshal "):
        parse_manifest(raw)


def test_foreign_configs() -> None:
    raw = b'{"rootfs":{"type":"layers"},"history":[],"Model_Family":"llama","capabilities":null}'
    assert parse_config(raw) == ConfigBlob(
        model_format="",
        model_family="llama",
        model_families=None,
        model_type="",
        file_type="",
        architecture="",
        os="",
    )
    assert parse_config(b"null") == EMPTY_CONFIG
    draft = parse_config(b'{"draft":{"architecture":"llama","tensor_prefix":"mtp."}}').draft
    assert draft is not None
    assert (draft.architecture, draft.tensor_prefix, draft.config) == ("llama", "mtp.", "")
    with pytest.raises(ManifestError, match="model_families"):
        parse_config(b'{"model_families":[1]}')


def test_the_size_counts_duplicates_each_time() -> None:
    layer = Layer(media_type=MEDIA_MODEL, digest="sha256:" + ZEROS, size=7)
    assert Manifest(config=layer, layers=(layer, layer)).size == 21
