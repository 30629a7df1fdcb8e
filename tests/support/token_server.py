"""A registry that wants tokens: a gateway in front of a plain one, on one host and port, that hands
out tokens for ed25519 signatures as Ollama's registry does (registry-and-store 5.4).

A request without a valid token gets 401 and a Bearer challenge whose realm is ``/v2/token`` here.
There, every claim is checked: the signature over the URL exactly as it was requested, the age of
``ts``, that a ``nonce`` comes once, that the key is known, and what it may do. ``refusals`` says
what was wrong, word by word; a client gets a status and a short text.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from support.gateway import Exchange, Gateway

#: base64 of the hex SHA-256 of nothing (5.3).
EMPTY_BODY = (
    "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
)
SERVICE = "tests"
_KEY_PREFIX = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
_AGE = 300.0
_REPOSITORY = re.compile(r"/v2/(?P<name>.+?)/(?:manifests|blobs|tags)/")


class Refusal(Exception):
    """Why a request for a token is refused: ``status``, and a text for the client."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Claim:
    """A request for a token that is what it says."""

    key: str
    scopes: tuple[str, ...]
    nonce: str


@dataclass
class Token:
    """What a token allows: (repository, action); ``uses`` left, None without end."""

    grants: frozenset[tuple[str, str]]
    uses: int | None


def check_signature(method: str, url: str, authorization: str) -> str:
    """The public key (field 2 of its line) that signed the request for ``url``; raises Refusal."""
    key, colon, signature = authorization.partition(":")
    if not colon:
        raise Refusal(401, "the Authorization is not KEY:SIGNATURE")
    try:
        wire = base64.b64decode(key, validate=True)
        raw = base64.b64decode(signature, validate=True)
    except binascii.Error:
        raise Refusal(401, "the Authorization is not base64") from None
    if len(wire) != 51 or not wire.startswith(_KEY_PREFIX):
        raise Refusal(401, "not an ssh-ed25519 key")
    message = f"{method},{url},{EMPTY_BODY}".encode()
    try:
        Ed25519PublicKey.from_public_bytes(wire[-32:]).verify(raw, message)
    except InvalidSignature:
        raise Refusal(401, "the signature is wrong") from None
    return key


def check_request(method: str, url: str, authorization: str, now: float) -> Claim:
    """All that can be checked without a memory; raises Refusal."""
    key = check_signature(method, url, authorization)
    query = url.partition("?")[2]
    fields = parse_qs(query, keep_blank_values=True)
    if [k for k, *_ in (pair.partition("=") for pair in query.split("&"))] != sorted(
        name for name, values in fields.items() for _ in values
    ):
        raise Refusal(400, "the query is not sorted")
    if fields.get("service") != [SERVICE]:
        raise Refusal(400, f"service: {fields.get('service')}")
    try:
        (ts,) = fields["ts"]
        (nonce,) = fields["nonce"]
    except (KeyError, ValueError):
        raise Refusal(400, "ts and nonce have to come once") from None
    if not re.fullmatch(r"\d+", ts) or abs(int(ts) - now) > _AGE:
        raise Refusal(401, f"ts {ts} is not fresh")
    if not re.fullmatch(r"[A-Za-z0-9_-]{22}", nonce):
        raise Refusal(400, f"nonce {nonce} is not 16 bytes of base64url")
    return Claim(key, tuple(fields.get("scope", ())), nonce)


def needed(method: str, path: str) -> frozenset[tuple[str, str]]:
    """What a request has to be allowed to do: pull in any case, push for what changes something."""
    found = _REPOSITORY.match(path)
    if found is None:
        return frozenset()
    actions = ("pull",) if method in ("GET", "HEAD") else ("pull", "push")
    return frozenset((found["name"], action) for action in actions)


def scope(grants: Iterable[tuple[str, str]]) -> str:
    """As a challenge asks for it: ``repository:a/b:pull,push``."""
    actions: dict[str, list[str]] = {}
    for repository, action in sorted(grants):
        actions.setdefault(repository, []).append(action)
    return " ".join(f"repository:{name}:{','.join(names)}" for name, names in actions.items())


def grants_of(scopes: Iterable[str]) -> frozenset[tuple[str, str]]:
    """(repository, action) of scopes as in a request; raises Refusal for another form."""
    grants = set()
    for each in scopes:
        if not each:
            continue
        kind, _, rest = each.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind != "repository" or not name:
            raise Refusal(400, f"scope {each}")
        grants |= {(name, action) for action in actions.split(",")}
    return frozenset(grants)


class TokenServer(Gateway):
    """``allowed`` maps public keys (the line, or its second field) to the (repository, action) that
    they may do; ``*`` stands for every repository.

    ``uses`` is how many requests a token is good for. To play foul, set ``challenge`` (what it
    returns is the ``WWW-Authenticate`` of a 401), ``redirect`` (a ``Location``, None for none;
    asked before anything is checked) or ``token_answer`` (status and body of a token's answer).
    """

    def __init__(
        self,
        upstream: int | None,
        allowed: Mapping[str, Iterable[tuple[str, str]]],
        *,
        uses: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(upstream)
        self.allowed = {_field(key): frozenset(grants) for key, grants in allowed.items()}
        self.uses = uses
        self.clock = clock
        self.tokens: dict[str, Token] = {}
        self.nonces: set[str] = set()
        self.refusals: list[str] = []
        self.challenge: Callable[[Exchange], str] | None = None
        self.redirect: Callable[[Exchange], str | None] | None = None
        self.token_answer: tuple[int, bytes] | None = None

    async def handle(self, exchange: Exchange) -> None:
        if self.redirect is not None and (target := self.redirect(exchange)) is not None:
            await exchange.answer(307, headers=[("Location", target)])
        elif exchange.path == "/v2/token":
            await self._token(exchange)
        elif self._permitted(exchange):
            await exchange.forward()
        else:
            await self._refuse(exchange)

    async def _token(self, exchange: Exchange) -> None:
        # The scheme cannot be seen from here: this gateway speaks plain http only.
        url = f"http://{exchange.host}{exchange.target}"
        try:
            claim = check_request(exchange.method, url, exchange.seen.authorization, self.clock())
            if claim.nonce in self.nonces:
                raise Refusal(401, f"nonce {claim.nonce} came before")
            self.nonces.add(claim.nonce)
            if claim.key not in self.allowed:
                raise Refusal(403, "unknown key")
            wanted = grants_of(claim.scopes)
        except Refusal as refusal:
            self.refusals.append(str(refusal))
            body = json.dumps({"errors": [{"code": "DENIED", "message": str(refusal)}]}).encode()
            await exchange.answer(refusal.status, body, [("Content-Type", "application/json")])
            return
        if self.token_answer is not None:
            await exchange.answer(*self.token_answer)
            return
        allowed = self.allowed[claim.key]
        granted = frozenset(g for g in wanted if g in allowed or ("*", g[1]) in allowed)
        token = secrets.token_urlsafe(24)
        self.tokens[token] = Token(granted, self.uses)
        await exchange.answer(
            200, json.dumps({"token": token}).encode(), [("Content-Type", "application/json")]
        )

    def _permitted(self, exchange: Exchange) -> bool:
        scheme, _, value = exchange.seen.authorization.partition(" ")
        token = self.tokens.get(value) if scheme == "Bearer" else None
        if token is None or not needed(exchange.method, exchange.path) <= token.grants:
            return False
        if token.uses is not None:
            if not token.uses:
                return False
            token.uses -= 1
        return True

    async def _refuse(self, exchange: Exchange) -> None:
        if self.challenge is not None:
            challenge = self.challenge(exchange)
        else:
            realm = f"http://{exchange.host}/v2/token"
            wanted = scope(needed(exchange.method, exchange.path))
            challenge = f'Bearer realm="{realm}",service="{SERVICE}",scope="{wanted}"'
        await exchange.body()
        body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
        await exchange.answer(
            401, body, [("WWW-Authenticate", challenge), ("Content-Type", "application/json")]
        )


def _field(key: str) -> str:
    return key.split()[1] if " " in key else key
