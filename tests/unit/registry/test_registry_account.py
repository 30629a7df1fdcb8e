"""Whose account this is (registry-and-store.md 5.7, 9.1, 10.10; http-api.md 16, case 284)."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from support.scripted_http import CUT, Fail, Reply, Script, Step, signing_key

from ollamad.errors import OllamadError
from ollamad.registry.account import Account, read_user, signin_url_in
from ollamad.registry.identity import Identity
from ollamad.registry.keys import KeyUnavailable, SigningKey
from ollamad.version import user_agent

NOW = 1760000000
KEY = (
    "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUFPaEI3L3p6aEMrSFhEZEdPZEx3SmxuNU5Zd202VU5Y"
    "eDNjaG1RU1ZURzQ"
)
PUB = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
HERE = f"https://ollama.com/connect?name=my%20box&key={KEY}"
ME = "https://ollama.com/api/me?ts=1760000000"
GONE = f"https://ollama.com/api/user/keys/{KEY}?ts=1760000000"


class Keys(Identity):
    """Keys at once, for a clock that jumps; ``None`` is a missing one."""

    def __init__(self, *keys: SigningKey | None) -> None:
        super().__init__(signing_key, hostname=lambda: "my box", now=lambda: NOW)
        self.keys = list(keys)

    async def key(self) -> SigningKey:
        await trio.lowlevel.checkpoint()
        key = self.keys.pop(0) if self.keys else signing_key()
        if key is None:
            raise KeyUnavailable("open /h/.ollama/id_ed25519: no such file or directory")
        return key


@asynccontextmanager
async def account(script: Script, *keys: SigningKey | None) -> AsyncIterator[Account]:
    async with script.http() as http:
        yield Account(http, Keys(*keys))


def me(reply: Any) -> Script:
    script = Script()
    script.on("POST", ME, reply)
    return script


async def failing(script: Script, *keys: SigningKey | None) -> tuple[int, dict[str, Any]]:
    async with account(script, *keys) as it:
        with pytest.raises(OllamadError) as caught:
            await it.user()
    assert script.open == 0
    return caught.value.status, caught.value.members


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


async def test_who_is_signed_in() -> None:
    script = me(Reply(body=body(id="u-1", email="a@b.c", name="ann", bio="", plan=" ")))
    async with account(script) as it:
        user = await it.user()
    assert (user.id, user.email, user.name, user.bio, user.plan) == (
        "u-1",
        "a@b.c",
        "ann",
        "",
        "free",
    )
    (seen,) = script.requests
    assert seen.body == b""
    assert dict(seen.headers) == {
        "user-agent": user_agent(),
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "authorization": f"{PUB}:7e2fmkXxukXDm5MOm0uMjHGcNQE1iRZK30oqVYcr54ATqlD5E4WAr5lb72U3IduFQ"
        "ooviRGCDxOa4oAWyVF3CA==",
    }


async def test_nobody_has_no_name() -> None:
    reply = Reply(body=body(id="u", email="e", name=""))
    assert await failing(me(reply)) == (401, {"error": "unauthorized", "signin_url": HERE})


@pytest.mark.parametrize(
    ("offered", "shown"),
    [
        (b'{"signin_url":"https://ollama.com/connect?x=y"}', "https://ollama.com/connect?x=y"),
        (b'{"error":"unauthorized"}', HERE),
        (b'{"signin_url":""}', HERE),
        (b'{"signin_url":5}', HERE),
        (b"no", HERE),
        (b"", HERE),
        (b'{"signin_url":"http://ollama.com/"}', HERE),
        (b'{"signin_url":"file:///etc/passwd"}', HERE),
        (b'{"signin_url":"--help"}', HERE),
        (b'{"signin_url":"https://a\\u001b[2J"}', HERE),
    ],
)
async def test_unknown_to_the_service(offered: bytes, shown: str) -> None:
    found = await failing(me(Reply(401, body=offered)))
    assert found == (401, {"error": "unauthorized", "signin_url": shown})


async def test_no_key_when_the_url_is_built() -> None:
    found = await failing(me(Reply(401)), signing_key(), None)
    assert found == (500, {"error": "error getting authorization details"})


@pytest.mark.parametrize(
    "reply",
    [
        Fail("dial tcp: lookup ollama.com: no such host"),
        Reply(500),
        Reply(404),
        Reply(301, {"Location": "https://evil.test/"}),
        Reply(204),
        Reply(body=b"no"),
        Reply(body=b"[]"),
        Reply(body=body(id=5)),
        Reply(body=[b'{"id"', CUT]),
        Reply(body=b'{"name":"' + b"x" * 70_000 + b'"}'),
        Reply(after=31),
    ],
)
async def test_anything_else(autojump_clock: trio.testing.MockClock, reply: Any) -> None:
    script = me(reply)
    assert await failing(script) == (503, {"error": "account unavailable"})
    assert len(script.requests) == 1


async def test_no_key_for_the_signature() -> None:
    assert await failing(Script(), None) == (503, {"error": "account unavailable"})


def test_all_of_a_user() -> None:
    names = ("id", "email", "name", "bio", "avatarurl", "firstname", "lastname", "plan")
    user = read_user(body(**{name: name.upper() for name in names}, other=[1]))
    assert user is not None
    assert [getattr(user, name) for name in names] == [name.upper() for name in names]
    assert read_user(b'{"id":null,"plan":null}') == read_user(b"{}")


def test_what_is_no_text_is_replaced() -> None:
    user = read_user(b'{"name":"\xff"}')
    assert user is not None
    assert user.name == "\ufffd"
    assert signin_url_in(b'{"signin_url":"https://ollama.com/\xff"}') == ""


@pytest.mark.parametrize("raw", [b"", b"[" * 100_000, b"\xff", b'{"\xff', b'{"name":"\\ud800"}x'])
def test_what_is_no_user_and_offers_nothing(raw: bytes) -> None:
    assert read_user(raw) is None
    assert signin_url_in(raw) == ""


# --- signing out ----------------------------------------------------------------------------------


def gone(reply: Any) -> Script:
    script = Script()
    script.on("DELETE", GONE, reply)
    return script


@pytest.mark.parametrize("status", [200, 204])
async def test_signing_out(status: int) -> None:
    script = gone(Reply(status))
    async with account(script) as it:
        await it.sign_out()
    (seen,) = script.requests
    assert seen.headers["authorization"] == (
        f"{PUB}:zbjq1B7jDkMAXUoY/ak+f75OfRgiQef9le2QSWcpeOkRKLn3sNMNcyJC5/jX1RXGbNQ+73TJnW0ksGZeg9"
        "/DAA=="
    )
    assert script.open == 0


BROKEN: list[Step] = [b"x", CUT]


@pytest.mark.parametrize(
    ("reply", "status", "text"),
    [
        (Reply(401, body=b'{"error":"x"}'), 401, "you are not currently signed in"),
        (Reply(500), 500, "there was an error signing out"),
        (Reply(404), 500, "there was an error signing out"),
        (Reply(302, {"Location": "https://evil.test/"}), 500, "there was an error signing out"),
        (Reply(body=BROKEN), 500, "there was an error signing out"),
        (Reply(after=31), 500, "there was an error signing out"),
        (Fail(), 500, "there was an error signing out"),
    ],
)
async def test_signing_out_fails(
    autojump_clock: trio.testing.MockClock, reply: Any, status: int, text: str
) -> None:
    script = gone(reply)
    async with account(script) as it:
        with pytest.raises(OllamadError) as caught:
            await it.sign_out()
    assert (caught.value.status, caught.value.message) == (status, text)
    assert script.open == 0
    assert len(script.requests) == 1


async def test_signing_out_without_a_key() -> None:
    async with account(Script(), None) as it:
        with pytest.raises(OllamadError, match="there was an error signing out") as caught:
            await it.sign_out()
    assert caught.value.status == 500
