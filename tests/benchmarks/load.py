"""A load client that costs little: raw sockets, one thread, bytes counted instead of parsed.

It shares the processors with what it measures, so a token may cost it one read and two comparisons;
the number of tokens is taken from the runner's own count at the end of each stream.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_READ = 262_144
_LAST_CHUNK = b"0\r\n\r\n"
#: Nothing here takes longer; a benchmark that hangs says so.
_LIMIT = 300.0
_COUNTS = re.compile(rb'"(?:predicted_n|eval_count)": ?(\d+)')


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: a path of a UNIX socket, or host and port; extra header lines."""

    address: str | tuple[str, int]
    headers: tuple[str, ...] = ()

    def connect(self) -> socket.socket:
        if isinstance(self.address, str):
            sock = socket.socket(socket.AF_UNIX)
        else:
            sock = socket.socket(socket.AF_INET)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(_LIMIT)
        sock.connect(self.address)
        return sock

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of one request."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *self.headers]
        if body or method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(slots=True)
class Stream:
    """One answer: times in seconds of one clock, tokens as the runner counted them.

    ``first`` is when the first token was there, ``end`` when the last byte was.
    """

    sent: float
    first: float = 0.0
    end: float = 0.0
    tokens: int = 0
    reads: int = 0
    data: bytes = b""

    @property
    def to_first(self) -> float:
        return self.first - self.sent


@dataclass(slots=True)
class _Reading:
    stream: Stream
    parts: list[bytes] = field(default_factory=list)
    tail: bytes = b""


def streams(requests: Sequence[tuple[Target, bytes]], first: bytes) -> list[Stream]:
    """Sends all requests at once, each on its own connection, and reads all answers to the end.

    ``first``: bytes that the body holds as soon as the first token is there. Raises RuntimeError
    for an answer that is no complete stream.
    """
    selector = selectors.DefaultSelector()
    socks = [target.connect() for target, _ in requests]
    readings = []
    for sock, (_, request) in zip(socks, requests, strict=True):
        reading = _Reading(Stream(time.perf_counter()))
        sock.sendall(request)
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, reading)
        readings.append(reading)
    missing = len(readings)
    give_up = time.perf_counter() + _LIMIT
    while missing:
        ready = selector.select(_LIMIT)
        if time.perf_counter() > give_up:
            raise RuntimeError("a stream does not end")
        for key, _ in ready:
            reading = key.data
            stream = reading.stream
            data = key.fileobj.recv(_READ)  # type: ignore[union-attr]
            now = time.perf_counter()
            stream.reads += 1
            if data:
                reading.parts.append(data)
            if not stream.first and first in (reading.tail + data):
                stream.first = now
            reading.tail = (reading.tail + data)[-64:]
            if not data or reading.tail.endswith(_LAST_CHUNK):
                stream.end = now
                selector.unregister(key.fileobj)
                missing -= 1
    selector.close()
    for sock in socks:
        sock.close()
    return [_finished(reading) for reading in readings]


def _finished(reading: _Reading) -> Stream:
    stream = reading.stream
    stream.data = b"".join(reading.parts)
    counts = _COUNTS.findall(stream.data[-4096:])
    if not stream.data.startswith(b"HTTP/1.1 200") or not counts or not stream.first:
        raise RuntimeError(f"no complete stream: {stream.data[:400]!r} … {stream.data[-400:]!r}")
    stream.tokens = int(counts[-1])
    return stream


def decode_rate(answers: Sequence[Stream]) -> float:
    """Tokens a second of all streams together, from the first token to the last."""
    begin = min(answer.first for answer in answers)
    end = max(answer.end for answer in answers)
    return sum(answer.tokens - 1 for answer in answers) / (end - begin)


def whole_rate(answers: Sequence[Stream]) -> float:
    """Tokens a second of all streams together, from the first request to the last token."""
    begin = min(answer.sent for answer in answers)
    end = max(answer.end for answer in answers)
    return sum(answer.tokens for answer in answers) / (end - begin)


def exchange(target: Target, request: bytes) -> tuple[float, bytes]:
    """One request on a connection of its own: seconds until the whole answer, and its body.

    Raises RuntimeError for a status other than 200.
    """
    sock = target.connect()
    begin = time.perf_counter()
    sock.sendall(request)
    body = _body(sock)
    seconds = time.perf_counter() - begin
    sock.close()
    return seconds, body


def requests_per_second(
    target: Target, request: bytes, *, connections: int, seconds: float
) -> float:
    """Answers a second when each of ``connections`` sends its next request after an answer.

    A connection is kept for as long as the server keeps it.
    """
    selector = selectors.DefaultSelector()
    waiting: dict[socket.socket, bytes] = {}

    def ask(sock: socket.socket) -> None:
        sock.sendall(request)
        waiting[sock] = b""

    def begin() -> None:
        sock = target.connect()
        selector.register(sock, selectors.EVENT_READ)
        ask(sock)

    for _ in range(connections):
        begin()
    answers = 0
    start = time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        for key, _ in selector.select(_LIMIT):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            piece = sock.recv(_READ)
            data = waiting[sock] = waiting[sock] + piece
            if piece and not _complete(data):
                continue
            if not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"not answered: {data[:400]!r}")
            answers += 1
            if not piece or b"connection: close" in data.partition(b"\r\n\r\n")[0].lower():
                selector.unregister(sock)
                del waiting[sock]
                sock.close()
                begin()
            else:
                ask(sock)
    for sock in waiting:
        sock.close()
    selector.close()
    return answers / (now - start)


_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def _body(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(_READ)
        if not piece:
            break
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"not answered: {head!r} {body[:400]!r}")
    found = _LENGTH.search(head)
    missing = int(found[1]) - len(body) if found else 0
    parts = [body]
    while missing > 0 if found else not parts[-1].endswith(_LAST_CHUNK):
        piece = sock.recv(_READ)
        if not piece:
            break
        parts.append(piece)
        missing -= len(piece)
    return b"".join(parts)


def _complete(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if found := _LENGTH.search(head):
        return len(body) >= int(found[1])
    return body.endswith(_LAST_CHUNK)
