"""HTTP by hand, for tests that care about bytes: one request, one answer, one socket."""

from __future__ import annotations

import socket
from typing import NamedTuple


class Answer(NamedTuple):
    """``headers``: lower-case names, repeated ones joined by ``", "``. ``framing`` is ``length``,
    ``chunked`` or ``none``; ``closed`` tells whether the server closed the connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    framing: str
    closed: bool
    interim: tuple[int, ...] = ()


def request_bytes(
    line: str, *headers: str, body: bytes | str = b"", host: str | None = "localhost"
) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    lines = [f"{line} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    if content:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + content


def exchange(port: int, request: bytes, *, head: bool = False, limit: float = 10) -> Answer:
    """Send ``request``, read one answer, and see whether the server closes if it says so.

    Raises TimeoutError when that takes longer than ``limit`` seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=limit) as client:
        client.sendall(request)
        received = client.makefile("rb")
        interim: list[int] = []
        while True:
            status = int(received.readline().split(b" ")[1])
            headers: dict[str, str] = {}
            while (header := received.readline().strip()) != b"":
                name, _, value = header.decode("latin-1").partition(": ")
                known = headers.get(name.lower())
                headers[name.lower()] = value if known is None else f"{known}, {value}"
            if status >= 200:
                break
            interim.append(status)
        body, framing = b"", "length"
        if head or status in (204, 304):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            framing = "chunked"
            while size := int(received.readline(), 16):
                body += received.read(size)
                received.readline()
            received.readline()
        elif "content-length" in headers:
            framing = "length"
            body = received.read(int(headers["content-length"]))
        else:
            framing = "none"
            body = received.read()
        closed = False
        if headers.get("connection") == "close" or framing == "none":
            closed = received.read(1) == b""
        return Answer(status, headers, body, framing, closed, tuple(interim))
