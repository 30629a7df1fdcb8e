"""The hand-written part of HTTP: whatever the reads, the same lines come out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.runners.framing import (
    LINE_LIMIT,
    ChunkedBody,
    EventLines,
    FramingError,
    LineTooLong,
    SizedBody,
    Truncated,
    parse_head,
)


def chunked(payloads: list[bytes], trailer: bytes = b"") -> bytes:
    body = b"".join(b"%X;ext=1\r\n%s\r\n" % (len(data), data) for data in payloads if data)
    return body + b"0\r\n" + trailer + b"\r\n"


@given(
    st.lists(st.binary(max_size=40), max_size=12),
    st.lists(st.integers(0, 600), max_size=12),
    st.sampled_from([b"", b"X-A: b\r\n"]),
)
def test_any_cut_gives_the_same_payload(
    payloads: list[bytes], cuts: list[int], trailer: bytes
) -> None:
    wire = chunked(payloads, trailer) + b"what follows"
    body = ChunkedBody()
    out = b""
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    for start, end in itertools.pairwise(edges):
        out += body.feed(wire[start:end])
    assert out == b"".join(payloads)
    assert body.done
    body.feed_eof()


def test_one_byte_at_a_time() -> None:
    body = ChunkedBody()
    out = b"".join(body.feed(bytes([byte])) for byte in chunked([b"abc", b"de"]))
    assert out == b"abcde"
    assert body.done


@pytest.mark.parametrize("cut", [b"", b"5", b"5\r\nabc", b"5\r\nabcde\r\n", b"0\r\n"])
def test_an_early_end_is_noticed(cut: bytes) -> None:
    body = ChunkedBody()
    body.feed(cut)
    with pytest.raises(Truncated, match="unexpected EOF"):
        body.feed_eof()


@pytest.mark.parametrize("wire", [b"zz\r\n", b"-5\r\n", b"\r\n", b"1" * 300])
def test_bad_sizes_are_refused(wire: bytes) -> None:
    with pytest.raises(FramingError):
        ChunkedBody().feed(wire)


def test_a_sized_body() -> None:
    body = SizedBody(5)
    assert body.feed(b"abc") == b"abc"
    with pytest.raises(Truncated):
        body.feed_eof()
    assert body.feed(b"defg") == b"de"
    assert body.done
    body.feed_eof()
    until_close = SizedBody(None)
    assert until_close.feed(b"x") == b"x"
    until_close.feed_eof()
    assert until_close.done


STREAM = (
    b'data: {"a":1}\n\n: ping\n\ndata:{"b":2}\r\n\r\n'
    b'event: x\nid: 3\n{"c":3}\n\ndata: [DONE]\n\ndata: {"d":4}\n\n{"e":5}'
)
EVENTS = [b'{"a":1}', b'{"b":2}', b'{"c":3}', b'{"d":4}', b'{"e":5}']


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_any_cut_gives_the_same_events(cuts: list[int]) -> None:
    lines = EventLines()
    out = []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        out += lines.feed(STREAM[start:end])
    assert [line.strip() for line in out + lines.finish()] == EVENTS


def test_all_lines_of_one_read_come_together() -> None:
    assert EventLines().feed(b"data: 1\n\ndata: 2\n\ndata: 3\n\n") == [b"1", b"2", b"3"]


def test_a_line_may_have_the_limit_and_not_more() -> None:
    assert len(EventLines().feed(b"data: " + b"x" * LINE_LIMIT + b"\n")[0]) == LINE_LIMIT
    with pytest.raises(LineTooLong):
        EventLines().feed(b"data: " + b"x" * (LINE_LIMIT + 1) + b"\n")
    lines = EventLines(limit=10)
    lines.feed(b"data: 0123")
    lines.feed(b"456789")
    with pytest.raises(LineTooLong):
        lines.feed(b"0")


def test_the_limit_counts_one_line_not_the_stream() -> None:
    lines = EventLines(limit=10)
    for _ in range(10):
        assert lines.feed(b"data: 012345\ndata: 01") == [b"012345"]
        assert lines.feed(b"2345\n") == [b"012345"]


@pytest.mark.parametrize(
    ("raw", "status", "body", "payload"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, SizedBody, b"abc"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404\r\nA: b\r\n\r\nuntil the end",
            404,
            SizedBody,
            b"until the end",
        ),
        (
            b"HTTP/1.1 500 Oh\r\ntransfer-ENCODING:Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            500,
            ChunkedBody,
            b"ab",
        ),
    ],
)
def test_a_head_in_any_two_pieces(raw: bytes, status: int, body: type, payload: bytes) -> None:
    whole = parse_head(raw)
    assert whole is not None
    for cut in range(len(raw) - len(whole.first)):
        assert parse_head(raw[:cut]) is None
    assert (whole.status, type(whole.body)) == (status, body)
    assert whole.body.feed(whole.first) == payload


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 19 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65536,
    ],
)
def test_what_is_no_head(raw: bytes) -> None:
    with pytest.raises(FramingError):
        parse_head(raw)
