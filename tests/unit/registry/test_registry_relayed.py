"""Headers between a client and the cloud (registry-and-store.md 5.6, http-api.md 17.1.3, 10.10)."""

import pytest

from ollamad.registry.relayed import answered_headers, own_headers, sent_headers
from ollamad.version import API_VERSION

HOP_BY_HOP = [
    "Connection",
    "Content-Length",
    "Proxy-Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]


def sent(*headers: tuple[str, str], has_body: bool = True) -> dict[str, str]:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    result = sent_headers(pairs, authorization="PUB:SIG", has_body=has_body)
    names = [name.lower() for name, _ in result]
    assert len(names) == len(set(names))
    return dict(result)


def answered(*headers: tuple[bytes, bytes]) -> list[tuple[str, str]]:
    return answered_headers(headers)


def test_the_signature_takes_the_place_of_the_clients_authorization() -> None:
    found = sent(
        ("Authorization", "Bearer mine"),
        ("User-Agent", "me/1"),
        ("X-Mine", "a"),
        ("TE", "trailers"),
        ("X-Ollama-Client-Version", "9"),
        ("Host", "localhost:11434"),
        ("Content-Type", "text/plain"),
        ("Accept-Encoding", "gzip"),
    )
    assert found == {
        "User-Agent": "me/1",
        "X-Mine": "a",
        "Content-Type": "text/plain",
        "Accept-Encoding": "gzip",
        "X-Ollama-Client-Version": API_VERSION,
        "Authorization": "PUB:SIG",
    }


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_headers_stay_here(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert spelling not in sent((spelling, "x"))
        assert answered((spelling.encode(), b"x"), (b"X-Foo", b"y")) == [("X-Foo", "y")]


def test_what_connection_names_stays_here() -> None:
    found = sent(("Connection", "close, X-One"), ("connection", " x-TWO "), ("x-one", "1"))
    assert "x-one" not in found
    kept = answered(
        (b"X-One", b"1"), (b"x-two", b"2"), (b"Connection", b"x-one ,X-Two"), (b"x", b"3")
    )
    assert kept == [("x", "3")]


def test_a_body_without_a_type_is_json() -> None:
    assert sent()["Content-Type"] == "application/json"
    assert "Content-Type" not in sent(has_body=False)


def test_an_answer_is_not_packed_for_a_client_that_did_not_ask() -> None:
    assert sent()["Accept-Encoding"] == "identity"


def test_cookies_stay_here() -> None:
    assert not {"Cookie", "Cookie2"} & sent(("Cookie", "a=b"), ("Cookie2", "c")).keys()
    assert answered((b"Set-Cookie", b"a=b"), (b"set-cookie2", b"c=d")) == []


def test_the_cloud_cannot_speak_for_this_server() -> None:
    kept = answered(
        (b"Access-Control-Allow-Origin", b"*"),
        (b"access-control-allow-credentials", b"true"),
        (b"Strict-Transport-Security", b"max-age=1"),
        (b"Clear-Site-Data", b"*"),
        (b"Alt-Svc", b'h2="evil:443"'),
        (b"Date", b"x"),
        (b"X-Request-Id", b"theirs"),
        (b"X-Foo", b"kept"),
        (b"x-foo", b"twice"),
        (b"Content-Type", b"text/event-stream"),
        (b"Location", b"https://elsewhere.test/"),
    )
    assert kept == [
        ("X-Foo", "kept"),
        ("x-foo", "twice"),
        ("Content-Type", "text/event-stream"),
        ("Location", "https://elsewhere.test/"),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"X-A", b"a\r\nSet-Cookie: b"),
        (b"X-A", b"a\nb"),
        (b"X-A", b"a\rb"),
        (b"X-A", b"a\0b"),
        (b"X-A\r\nX-B", b"a"),
        (b"X A", b"a"),
        (b"", b"a"),
        (b"X-A:", b"a"),
        (b"X-A", b"\xff"),
        (b"X-\xe9", b"a"),
    ],
)
def test_what_is_no_header_is_not_passed_on(name: bytes, value: bytes) -> None:
    assert answered((name, value), (b"X-Foo", b"y")) == [("X-Foo", "y")]


def test_text_beyond_ascii_passes() -> None:
    assert answered((b"X-A", "é".encode())) == [("X-A", "é")]


def test_what_the_daemon_reads_itself() -> None:
    assert dict(own_headers(authorization="PUB:SIG")) == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "X-Ollama-Client-Version": API_VERSION,
        "Authorization": "PUB:SIG",
    }
