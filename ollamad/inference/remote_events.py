"""The answer of a remote host to a stub's request, line by line, as this server gives it. Pure.

Source: http-api.md 17.3.4 and 17.3.5, registry-and-store.md 10.11.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from ollamad.errors import OllamadError
from ollamad.store.json_text import encode
from ollamad.wire import ChatResponse, GenerateResponse

#: Bytes that one line may have.
LONGEST_LINE = 8 * 1024 * 1024

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Request Entity Too Large",
    414: "Request URI Too Long",
    418: "I'm a teapot",
    422: "Unprocessable Entity",
}
#: What an event without its time has.
_NO_TIME = b'"0001-01-01T00:00:00Z"'


class RemoteRefusal(OllamadError):
    """The remote host answered with an error status: it is passed on, with two more keys."""

    @property
    def members(self) -> dict[str, Any]:
        status = self.status
        return {
            "StatusCode": status,
            "Status": f"{status} {_PHRASES.get(status, '')}",
            "error": self.message,
        }


def refusal(status: int, body: bytes) -> RemoteRefusal:
    """The error in an answer of ``status``: the ``error`` of its JSON, or the text that it is."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return RemoteRefusal(text, status=status)
    message = found.get("error") if isinstance(found, dict) else None
    return RemoteRefusal(message if isinstance(message, str) else "", status=status)


class Lines:
    """Cuts a body into its lines. Raises OllamadError for one that is too long."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that end in ``data``, without blank ones."""
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = b"".join([*self._pieces, whole[0]])
            self._pieces.clear()
            self._length = 0
        self._pieces.append(rest)
        self._length += len(rest)
        if self._length > LONGEST_LINE or any(len(line) > LONGEST_LINE for line in whole):
            raise OllamadError("the remote host sent a line that is longer than 8 MB")
        return [line for line in whole if line.strip()]

    def end(self) -> list[bytes]:
        """The last line, when the body does not end with a line break."""
        rest = b"".join(self._pieces)
        return [rest] if rest.strip() else []


class Translation:
    """Events of a remote host as those of a stub: ``model`` is what the client asked for."""

    def __init__(
        self,
        type_: type[ChatResponse] | type[GenerateResponse],
        *,
        model: str,
        remote_model: str,
        remote_host: str,
    ) -> None:
        self._own = {
            "model": encode(model),
            "remote_model": encode(remote_model),
            "remote_host": encode(remote_host),
        }
        self._fields = [
            (field.encode_name, _EMPTY.get(field.encode_name))
            for field in msgspec.structs.fields(type_)
        ]

    def events(self, lines: list[bytes]) -> tuple[bytes, OllamadError | None]:
        """Lines that arrived together, each with its line break; and the error that ends them."""
        translated = []
        try:
            for line in lines:
                translated.append(self._event(line))
        except OllamadError as error:
            return b"".join(translated), error
        return b"".join(translated), None

    def _event(self, line: bytes) -> bytes:
        """Known keys in our order. Raises OllamadError for an error, and for what is no event."""
        if not line.isascii():
            # What is no UTF-8 would make our own line none either.
            line = line.decode("utf-8", "replace").encode()
        try:
            found = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, RecursionError):
            raise OllamadError(line.decode("utf-8", "replace").strip()) from None
        _check(found.get("error"))
        members = []
        for name, empty in self._fields:
            value = self._own.get(name) or _given(found.get(name)) or empty
            if value is not None:
                members.append(encode(name) + b":" + value)
        return b"{" + b",".join(members) + b"}\n"


#: What stands for the fields that every event has.
_EMPTY = {
    "created_at": _NO_TIME,
    "message": b'{"role":"","content":""}',
    "response": b'""',
    "done": b"false",
}


def _given(value: msgspec.Raw | None) -> bytes | None:
    text = b"" if value is None else bytes(value)
    return None if text in (b"", b"null") else text


def _check(error: msgspec.Raw | None) -> None:
    text = _given(error)
    if text is None or text == b'""':
        return
    try:
        message: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        message = None  # a number beyond all numbers, or half a surrogate pair
    raise OllamadError(message if isinstance(message, str) else text.decode("utf-8", "replace"))
