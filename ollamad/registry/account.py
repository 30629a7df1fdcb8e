"""Whose account at ollama.com this machine belongs to (registry-and-store.md 5.7)."""

from __future__ import annotations

import msgspec
import trio

from ollamad.errors import OllamadError, Unauthorized
from ollamad.registry.bodies import read_body
from ollamad.registry.errors import TransportError
from ollamad.registry.http import Http
from ollamad.registry.identity import Identity
from ollamad.registry.signing import account_key, api_message
from ollamad.wire import UserResponse

_BASE = "https://ollama.com"
#: Bytes of an answer, seconds for all of it.
_LONGEST = 64 * 1024
_TIMEOUT = 30.0


class Account:
    """Asks ollama.com itself, whatever serves the cloud's models."""

    def __init__(self, http: Http, identity: Identity) -> None:
        self._http = http
        self._identity = identity

    async def user(self) -> UserResponse:
        """Raises Unauthorized when nobody is signed in, OllamadError (503, 500) for the rest."""
        try:
            status, body = await self._ask("POST", "/api/me")
        except OllamadError as error:
            raise _unavailable() from error
        if status == 401:
            url = signin_url_in(body) or await self._identity.signin_url()
            if not url:
                raise OllamadError("error getting authorization details")
            raise Unauthorized(url)
        if status != 200:
            raise _unavailable()
        user = read_user(body)
        if user is None:
            raise _unavailable()
        if not user.name:
            raise Unauthorized(await self._identity.signin_url())
        return user

    async def sign_out(self) -> None:
        """Raises OllamadError: 401 when nobody is signed in, else 500."""
        failed = OllamadError("there was an error signing out")
        try:
            key = await self._identity.key()
            path = f"/api/user/keys/{account_key(key.public_line)}"
            status, _ = await self._ask("DELETE", path)
        except OllamadError as error:
            raise failed from error
        if status == 401:
            raise OllamadError("you are not currently signed in", status=401)
        if not 200 <= status < 300:
            raise failed

    async def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        """Status and body. Raises OllamadError without a key, and without an answer in time."""
        with trio.move_on_after(_TIMEOUT):
            key = await self._identity.key()
            ts = self._identity.timestamp
            headers = {
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Authorization": key.authorization(api_message(method, path, ts)),
            }
            response = await self._http.send(method, f"{_BASE}{path}?ts={ts}", headers)
            try:
                return response.status_code, await read_body(response, _LONGEST)
            finally:
                with trio.CancelScope(shield=True):
                    await response.aclose()
        raise TransportError(f"no answer within {_TIMEOUT:g} seconds")


def _unavailable() -> OllamadError:
    return OllamadError("account unavailable", status=503)


class _User(msgspec.Struct):
    """An answer as it comes: anything may be missing or ``null``."""

    id: str | None = None
    email: str | None = None
    name: str | None = None
    bio: str | None = None
    avatarurl: str | None = None
    firstname: str | None = None
    lastname: str | None = None
    plan: str | None = None


def read_user(body: bytes) -> UserResponse | None:
    """The user in an answer, the plan ``free`` if it names none; None for what is no user."""
    try:
        found = msgspec.json.decode(_text(body), type=_User)
    except (msgspec.DecodeError, RecursionError):
        return None
    fields = {name: getattr(found, name) or "" for name in _User.__struct_fields__}
    return UserResponse(**{**fields, "plan": fields["plan"].strip() or "free"})


def _text(body: bytes) -> str:
    """What is no UTF-8 is replaced: the library raises other errors for it than for bad JSON."""
    return body.decode("utf-8", "replace")


class _Refusal(msgspec.Struct):
    signin_url: str | None = None


def signin_url_in(body: bytes) -> str:
    """The sign-in URL that an answer offers; empty for one that no browser should be sent to."""
    try:
        url = msgspec.json.decode(_text(body), type=_Refusal).signin_url or ""
    except (msgspec.DecodeError, RecursionError):
        return ""
    return url if url.startswith("https://") and url.isascii() and url.isprintable() else ""
