"""From the bytes of an HTTP response to the lines of an event stream, without I/O.

Generated tokens pass here, so it is written by hand: one call takes all that one read brought and
returns every complete line in it. The head, too: a runner answers when it begins to compute, and
what a library does with those few lines would take a core from it for a third of a millisecond.

Spec: runners-and-scheduling 3.8 items 1 to 3.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Longest line of an event stream, in bytes (3.8 item 3).
LINE_LIMIT = 8_000_000

#: Longest head of a response, in bytes.
HEAD_LIMIT = 65536

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: |$)")

#: A chunk's size line is a few hex digits; more than this is not HTTP.
_SIZE_LINE_LIMIT = 256


class FramingError(Exception):
    """The body breaks HTTP's rules or the line limit."""


class LineTooLong(FramingError):
    """A line is longer than ``LINE_LIMIT``."""


class Truncated(FramingError):
    """The connection ended before the body did."""


class ChunkedBody:
    """Removes the framing of ``Transfer-Encoding: chunked``."""

    __slots__ = ("_buffer", "_left", "_trailer", "done")

    def __init__(self) -> None:
        self._buffer = b""
        #: Bytes still to come of the current chunk, the two of its line end included.
        self._left = 0
        self._trailer = False
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``. Raises ``FramingError`` for a bad size line."""
        # The common case first: each chunk lies complete in one read.
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        position = 0
        end = len(data)
        parts: list[bytes] = []
        while position < end and not self.done:
            if self._left:
                take = min(self._left, end - position)
                payload_left = self._left - 2
                if payload_left > 0:
                    parts.append(data[position : position + min(take, payload_left)])
                position += take
                self._left -= take
                continue
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                if end - position > _SIZE_LINE_LIMIT:
                    raise FramingError("chunk size line too long")
                self._buffer = data[position:]
                break
            line = data[position:line_end]
            position = line_end + 2
            if self._trailer:
                # Trailer fields are read and dropped; an empty line ends the body.
                self.done = not line
                continue
            try:
                size = int(line.split(b";", 1)[0], 16)
            except ValueError:
                raise FramingError("bad chunk size") from None
            if size < 0:
                raise FramingError("bad chunk size")
            if size == 0:
                self._trailer = True
            else:
                self._left = size + 2
        if len(parts) == 1:
            return parts[0]
        return b"".join(parts)

    def feed_eof(self) -> None:
        """The connection ended. Raises ``Truncated`` when the last chunk is missing."""
        if not self.done:
            raise Truncated("unexpected EOF")


class SizedBody:
    """A body whose length is known from ``Content-Length``, or that ends with the connection."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int | None) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> bytes:
        """The part of ``data`` that belongs to the body."""
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def feed_eof(self) -> None:
        """The connection ended. Raises ``Truncated`` when bytes are missing."""
        if self._left:
            raise Truncated("unexpected EOF")
        self.done = True


Body = ChunkedBody | SizedBody


class Head(NamedTuple):
    """Status and body of a response, and the bytes of the body that came with the head."""

    status: int
    body: Body
    first: bytes


def parse_head(data: bytes) -> Head | None:
    """The head of the response that ``data`` begins with, None while it is not complete.

    Informational responses are passed over. Raises ``FramingError`` for what is no HTTP/1 head.
    """
    while True:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            if len(data) > HEAD_LIMIT or not b"HTTP/1.".startswith(data[:7]):
                raise FramingError("malformed HTTP response")
            return None
        status_line, *fields = head.split(b"\r\n")
        match = _STATUS_LINE.match(status_line)
        if match is None:
            raise FramingError("malformed HTTP response")
        status = int(match[1])
        if status >= 200:
            return Head(status, _body(fields), rest)
        data = rest


def _body(fields: list[bytes]) -> Body:
    length: int | None = None
    for field in fields:
        name, _, value = field.partition(b":")
        name, value = name.lower(), value.strip()
        if name == b"transfer-encoding" and value.lower() == b"chunked":
            return ChunkedBody()
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18:
                raise FramingError("malformed Content-Length")
            length = int(value)
    return SizedBody(length)


class EventLines:
    """Splits an event stream into the payloads of its ``data:`` lines (or plain NDJSON lines)."""

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        #: Pieces of a line whose end has not come; a list, so that a huge line costs no copies.
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = limit

    def feed(self, payload: bytes) -> list[bytes]:
        """Every line that ``payload`` completes, without prefix, comments, blanks and ``[DONE]``.

        Raises ``LineTooLong``.
        """
        lines = payload.split(b"\n")
        rest = lines.pop()
        if not lines:
            self._keep(rest)
            return []
        if self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts = []
        self._size = 0
        if rest:
            self._keep(rest)
        out = []
        for line in lines:
            if line[:6] == b"data: ":
                event = line[6:]
                if len(event) > self._limit:
                    raise LineTooLong
                if event[:6] != b"[DONE]":
                    out.append(event)
            elif line and (event := self._unusual(line)):
                out.append(event)
        return out

    def finish(self) -> list[bytes]:
        """What a stream leaves that ends without a line break."""
        return self.feed(b"\n") if self._parts else []

    def _keep(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._size += len(piece)
        # Six bytes more than the limit are fine: they are the prefix.
        if self._size > self._limit + 6:
            raise LineTooLong

    def _unusual(self, line: bytes) -> bytes:
        line = line.strip()
        if line.startswith(b":"):
            return b""  # a comment that keeps the connection alive
        if line.startswith((b"event:", b"id:", b"retry:")):
            return b""
        if line.startswith(b"data:"):
            line = line[5:].strip()
        if len(line) > self._limit:
            raise LineTooLong
        return b"" if line == b"[DONE]" else line
