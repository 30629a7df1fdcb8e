"""A stand-in for ollama.com: it checks the ed25519 signature of every request, as the cloud does,
and answers what it is told to (registry-and-store 5.3, 5.5 to 5.7).

    with in_thread(CloudServer()) as cloud:               # of support.gateway
        cloud.will("/api/chat", body=[b"one", gate, b"two"])
        daemon = make_daemon(OLLAMA_CLOUD_BASE_URL=cloud.url)
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import trio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from support.gateway import Exchange, Gateway

_KEY_PREFIX = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
_FRESH = 60.0
_LIMIT = 30.0


class Gate:
    """Holds an answer up until the test opens it."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        await trio.to_thread.run_sync(self._open.wait, _LIMIT)


class _Mark:
    pass


#: Waits until the client has left.
LEAVES = _Mark()
#: Ends the connection in the middle of the answer.
CUTS = _Mark()

Step: TypeAlias = bytes | Gate | _Mark


@dataclass
class Call:
    """A request whose signature was good, or that had none where none is wanted."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    #: The public key that signed it, the second field of its line; empty without a signature.
    key: str

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def json(self) -> object:
        return json.loads(self.body)


@dataclass
class _Part:
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: Sequence[Step] = ()


class BadSignature(Exception):
    pass


def signer_of(method: str, target: str, authorization: str, now: float) -> str:
    """The key that signed the request for ``target``, exactly as it was sent; raises BadSignature.

    The query has to be sorted, with one fresh ``ts``.
    """
    key, colon, signature = authorization.partition(":")
    try:
        wire = base64.b64decode(key, validate=True)
        raw = base64.b64decode(signature, validate=True)
    except binascii.Error:
        raise BadSignature("not base64") from None
    if not colon or len(wire) != 51 or not wire.startswith(_KEY_PREFIX):
        raise BadSignature("not KEY:SIGNATURE")
    try:
        public = Ed25519PublicKey.from_public_bytes(wire[-32:])
        public.verify(raw, f"{method},{target}".encode())
    except InvalidSignature:
        raise BadSignature("wrong signature") from None
    names = [pair.partition("=")[0] for pair in target.partition("?")[2].split("&")]
    stamps = re.findall(r"(?:[?&])ts=([0-9]+)(?=&|$)", target)
    if names != sorted(names) or names.count("ts") != 1 or len(stamps) != 1:
        raise BadSignature(f"query: {names}")
    if abs(int(stamps[0]) - now) > _FRESH:
        raise BadSignature("stale")
    return key


class CloudServer(Gateway):
    """``calls`` are the requests that were believed, ``refusals`` why others were not.

    ``signed`` False: a plain host of remote models, to which no signature may be sent.
    """

    def __init__(self, *, signed: bool = True) -> None:
        super().__init__(None)
        self.signed = signed
        self.calls: list[Call] = []
        self.refusals: list[str] = []
        #: Set when a client left where the answer said ``LEAVES``.
        self.left = threading.Event()
        self._parts: dict[str, _Part] = {}

    def will(
        self,
        path: str,
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (("Content-Type", "application/json"),),
        body: bytes | str | Sequence[Step] = b"{}",
    ) -> None:
        """What it answers at ``path`` from now on; a body of one piece has a length."""
        if isinstance(body, str):
            body = body.encode()
        self._parts[path] = _Part(status, headers, [body] if isinstance(body, bytes) else body)

    def clear(self) -> None:
        self.calls.clear()
        self.refusals.clear()
        self._parts.clear()
        self.left.clear()

    def call(self) -> Call:
        """The only request since ``clear``."""
        assert self.refusals == []
        (call,) = self.calls
        return call

    async def handle(self, exchange: Exchange) -> None:
        body = await exchange.body()
        authorization = exchange.headers.get("authorization", "")
        key = ""
        if self.signed:
            try:
                key = signer_of(exchange.method, exchange.target, authorization, time.time())
            except BadSignature as error:
                self.refusals.append(f"{exchange.method} {exchange.target}: {error}")
                await exchange.answer(401, json.dumps({"error": str(error)}).encode())
                return
        elif authorization:
            self.refusals.append(f"{exchange.method} {exchange.target}: a signature for a stranger")
        self.calls.append(Call(exchange.method, exchange.target, exchange.headers, body, key))
        part = self._parts.get(exchange.path)
        if part is None:
            await exchange.answer(404, b'{"error":"nothing is there"}')
        elif len(part.body) == 1 and isinstance(part.body[0], bytes):
            await exchange.answer(part.status, part.body[0], part.headers)
        else:
            await self._play(exchange, part)

    async def _play(self, exchange: Exchange, part: _Part) -> None:
        await exchange.start(part.status, [*part.headers, ("Transfer-Encoding", "chunked")])
        for step in part.body:
            if isinstance(step, bytes):
                await exchange.send(step)
            elif isinstance(step, Gate):
                await step.passed()
            elif step is LEAVES:
                if await exchange.gone(_LIMIT):
                    self.left.set()
                return
            else:
                await exchange.drop()
                return
        await exchange.end()
