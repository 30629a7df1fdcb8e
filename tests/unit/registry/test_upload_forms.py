"""URLs, tags and bytes of a push, as the contract writes them."""

from __future__ import annotations

import hashlib

import pytest

from ollamad.errors import OllamadError
from ollamad.registry.parts import cut
from ollamad.registry.upload_forms import (
    commit_url,
    etag,
    manifest_body,
    opening_url,
    progress,
    pushed_blobs,
    retry_after,
    with_query,
)
from ollamad.store.manifest import Layer, Manifest, encode_manifest, stored_manifest
from ollamad.store.names import Name

D = "sha256:" + "ab" * 32
BASE = "https://h/v2/a/b/blobs/uploads/"


def md5s(content: bytes, size: int) -> list[bytes]:
    return [
        hashlib.md5(content[at : at + size], usedforsecurity=False).digest()
        for at in range(0, len(content), size)
    ]


def test_etag() -> None:
    assert etag(md5s(b"x" * 250, 100)) == "64ba450e5681a491d4e87982f3c64ebc-3"
    assert etag(md5s(b"x" * 250, 250)) == "815d1c67c08efd197b13bfc309527f98-1"
    assert etag([]) == "d41d8cd98f00b204e9800998ecf8427e-0"


def test_etags_of_the_worked_push() -> None:
    """9.3, with the blobs of 9.2."""
    params = b'{"stop":["USER:","ASSISTANT:"],"temperature":0.6,"top_k":10,"top_p":0.7}\n'
    config = (
        b'{"model_format":"gguf","model_family":"test","model_families":["test"],'
        b'"model_type":"0","file_type":"unknown","architecture":"amd64","os":"linux"}\n'
    )
    for content, tag in (
        (b"{{ .System }} {{ .Prompt }}", "d6717bb8ff4d3436f697fdd3e24873dd-1"),
        (params, "7af9fdfa31596f1c70d8737cb70a7dd5-1"),
        (config, "15c302e8bdd5c74c6efba04d834d78d6-1"),
    ):
        assert etag(md5s(content, len(content))) == tag


def test_etag_of_a_quarter_of_a_gigabyte() -> None:
    block = bytes(10_000_000)
    digests = []
    for blocks in (10, 10, 5):
        part = hashlib.md5(usedforsecurity=False)
        for _ in range(blocks):
            part.update(block)
        digests.append(part.digest())
    assert [part.size for part in cut(250_000_000)] == [100_000_000, 100_000_000, 50_000_000]
    assert etag(digests) == "5401aade91ae4b38bab0588fb7e0a87f-3"


@pytest.mark.parametrize(
    ("from_", "query"),
    [
        ("", ""),
        ("library/base:q4", "?from=library%2Fbase&mount=sha256%3A" + "ab" * 32),
        ("llama3.2", "?from=library%2Fllama3.2&mount=sha256%3A" + "ab" * 32),
        ("other.host/ns/Base:q4", "?from=ns%2FBase&mount=sha256%3A" + "ab" * 32),
        ("test.gguf", "?from=library%2Ftest.gguf&mount=sha256%3A" + "ab" * 32),
        ("/home/u/a b/t.gguf", ""),
    ],
)
def test_a_layer_of_another_model_asks_to_be_mounted(from_: str, query: str) -> None:
    layer = Layer(media_type="x", digest=D, size=1, from_=from_)
    assert opening_url(BASE, layer) == BASE + query


@pytest.mark.parametrize(
    ("session", "query"),
    [
        ("https://h/U1?_state=L250&zz=1", "_state=L250&digest={d}&etag=e-1&zz=1"),
        ("https://h/U1?x", "digest={d}&etag=e-1&x="),
        ("https://h/U1", "digest={d}&etag=e-1"),
        ("https://h/U1?b=2&a=1&b=1", "a=1&b=2&b=1&digest={d}&etag=e-1"),
        ("https://h/U1?_state=a%2Bb%2Fc%3D%3D", "_state=a%2Bb%2Fc%3D%3D&digest={d}&etag=e-1"),
        ("https://h/U1?s=a%20b+c", "digest={d}&etag=e-1&s=a+b+c"),
        ("https://h/U1?s=%FF%c3%a4", "digest={d}&etag=e-1&s=%FF%C3%A4"),
        ("https://h/U1?n=1#part", "digest={d}&etag=e-1&n=1"),
    ],
)
def test_a_commit_keeps_what_the_session_url_says(session: str, query: str) -> None:
    expected = "https://h/U1?" + query.format(d="sha256%3A" + "ab" * 32)
    assert commit_url(session, D, "e-1") == expected


def test_a_commit_without_parts_of_its_own_has_no_etag() -> None:
    assert commit_url("https://h/U?x=1", D) == "https://h/U?digest=sha256%3A" + "ab" * 32 + "&x=1"


def test_unreserved_characters_stay() -> None:
    assert with_query("u", ("k", "AZaz09-_.~ ,:/é")) == "u?k=AZaz09-_.~+%2C%3A%2F%C3%A9"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("9", 9),
        (" 0 ", 0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_a_foreign_manifest_is_written_anew() -> None:
    raw = (
        b'{"layers":[{"size":1000,"digest":"D","mediaType":"x/y","annotations":{}}],'
        b'"schemaVersion":7,"foo":1,"config":{"digest":""}}'
    ).replace(b"D", D.encode())
    assert manifest_body(stored_manifest(raw, 0)) == (
        b'{"schemaVersion":7,"mediaType":"","config":{"mediaType":"","digest":"","size":0},'
        b'"layers":[{"mediaType":"x/y","digest":"D","size":1000}]}'
    ).replace(b"D", D.encode())


def test_a_manifest_of_ours_loses_its_last_newline_only() -> None:
    manifest = Manifest(
        config=Layer(media_type="c", digest=D, size=3),
        layers=(Layer(media_type="l<&>", digest=D, size=2, from_="a/b", name="é\u2028"),),
    )
    raw = encode_manifest(manifest)
    assert raw.endswith(b"}\n")
    assert manifest_body(stored_manifest(raw, 0)) == raw[:-1]


@pytest.mark.parametrize(
    ("layers", "written"), [(b"null", b"null"), (b"[]", b"[]"), (None, b"null")]
)
def test_no_layers_are_written_as_they_were(layers: bytes | None, written: bytes) -> None:
    raw = b'{"mediaType":"m"%s}' % (b"" if layers is None else b',"layers":' + layers)
    assert manifest_body(stored_manifest(raw, 0)) == (
        b'{"schemaVersion":0,"mediaType":"m","config":{"mediaType":"","digest":"","size":0},'
        b'"layers":%s}' % written
    )


def test_layers_go_before_the_config() -> None:
    one, two = (Layer(media_type=kind, digest=D, size=1) for kind in "ab")
    name = Name.parse("ns/m")
    assert pushed_blobs(Manifest(config=two, layers=(one,)), name) == [one, two]
    assert pushed_blobs(Manifest(layers=(one,)), name) == [one]


@pytest.mark.parametrize(
    ("digest", "text"), [("", "ns/m: digest is empty"), ("sha256:../x", "invalid digest format")]
)
def test_bad_digests_are_refused(digest: str, text: str) -> None:
    manifest = Manifest(layers=(Layer(media_type="a", digest=digest, size=1),))
    with pytest.raises(OllamadError) as caught:
        pushed_blobs(manifest, Name.parse("ns/m"))
    assert (caught.value.message, caught.value.status) == (text, 500)


def test_progress() -> None:
    line = progress("sha256:086d4a1c293b" + "0" * 52, 250, 100)
    assert (line.status, line.total, line.completed) == ("pushing 086d4a1c293b", 250, 100)
