"""Signed requests to the cloud (registry-and-store.md 5.6, 9.1, 10.10; http-api.md 17.1)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.scripted_http import CUT, STALL, Fail, Reply, Script, Wait, signing_key

from ollamad.cloud_base import DEFAULT, CloudBase, parse_cloud_base
from ollamad.errors import Forbidden, OllamadError, Unauthorized
from ollamad.registry.cloud import NO_DETAILS, NO_MODEL, Cloud
from ollamad.registry.details import LONGEST, Details
from ollamad.registry.errors import TransportError
from ollamad.registry.identity import Identity
from ollamad.registry.keys import KeyUnavailable, SigningKey, ensure_key_pair

NOW = 1795247982
BASE = "https://ollama.com:443"
PUB = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
SIGNIN = (
    "https://ollama.com/connect?name=my%20box&key=c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQU"
    "FBSUFPaEI3L3p6aEMrSFhEZEdPZEx3SmxuNU5Zd202VU5YeDNjaG1RU1ZURzQ"
)


def no_key() -> SigningKey:
    raise KeyUnavailable("open /h/.ollama/id_ed25519: no such file or directory")


class Threadless(Identity):
    """A clock that jumps does not wait for threads."""

    async def key(self) -> SigningKey:
        await trio.lowlevel.checkpoint()
        return self._load()


def identity(load: Any = signing_key, now: int = NOW) -> Identity:
    return Threadless(load, hostname=lambda: "my box", now=lambda: now + 0.9)


@asynccontextmanager
async def cloud(
    script: Script,
    *,
    who: Identity | None = None,
    base: CloudBase = DEFAULT,
    disabled: bool = False,
) -> AsyncIterator[Cloud]:
    async with script.http() as http:
        yield Cloud(http, who or identity(), base, disabled=disabled)


def answering(*replies: Any, base: str = BASE) -> Script:
    script = Script()
    for method in ("GET", "POST"):
        script.on(method, f"{base}/*", *replies)
    return script


async def test_the_worked_example() -> None:
    script = answering(
        Reply(
            429,
            [("X-Foo", "a"), ("Keep-Alive", "b"), ("Content-Type", "text/plain")],
            b"slow",
        )
    )
    headers = [
        (b"host", b"localhost:11434"),
        (b"authorization", b"Bearer mine"),
        (b"user-agent", b"me/1"),
        (b"x-mine", b"m"),
        (b"te", b"trailers"),
        (b"content-length", b"999"),
    ]
    async with cloud(script) as it:
        upstream = await it.forward("POST", "/api/chat", "ts=999&b=2&a=1", headers, b"{}")
        body = b"".join([piece async for piece in upstream.chunks()])
        await upstream.aclose()
    (seen,) = script.requests
    assert seen.url == f"{BASE}/api/chat?a=1&b=2&ts=1795247982"
    assert seen.body == b"{}"
    assert dict(seen.headers) == {
        "user-agent": "me/1",
        "x-mine": "m",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "x-ollama-client-version": "0.33.0",
        "authorization": f"{PUB}:kQA7vu+3vhozYIwJbRBWTYLfiBoFcuOfeQOt9r+TnQ3fVu2mSXdRo7p6kKFo4l8qK"
        "PbFVPXIZX7e7dX5jCF4CQ==",
    }
    assert (upstream.status, body) == (429, b"slow")
    assert upstream.headers == [("X-Foo", "a"), ("Content-Type", "text/plain")]
    assert upstream.header("content-TYPE") == "text/plain"
    assert upstream.header("x") == ""


@pytest.mark.parametrize(
    ("path", "query", "sent", "signature"),
    [
        (
            "/v1/messages",
            "beta=true&foo=bar",
            "/v1/messages?beta=true&foo=bar&ts=123",
            "UCAZXM1GBEbz86knHpA2h5o4We21vhzJTmqJAAaA6JK6fEZAQYDgNSJ1gIohGIE9ACy2ZCyMCK87L5SLUBMKBg==",
        ),
        ("/v1/messages", "beta=true&ts=999", "/v1/messages?beta=true&ts=123", None),
        ("/api/chat", "", "/api/chat?ts=123", None),
    ],
)
async def test_what_is_sent_is_what_is_signed(
    path: str, query: str, sent: str, signature: str | None
) -> None:
    script = answering(Reply())
    async with cloud(script, who=identity(now=123)) as it:
        await (await it.forward("POST", path, query, [], b"{}")).aclose()
    expected = signing_key().authorization(f"POST,{sent}".encode())
    if signature is not None:
        assert expected == f"{PUB}:{signature}"
    (seen,) = script.requests
    assert (seen.path, seen.headers["authorization"]) == (sent, expected)


async def test_a_stand_in_on_this_machine_is_asked_and_signed_for() -> None:
    script = answering(Reply(), base="http://127.0.0.1:8080")
    async with cloud(script, base=parse_cloud_base("http://127.0.0.1:8080/")) as it:
        await (await it.forward("POST", "/api/chat", "", [], b"{}")).aclose()
    (seen,) = script.requests
    assert seen.url == f"http://127.0.0.1:8080/api/chat?ts={NOW}"
    assert seen.headers["authorization"].startswith(f"{PUB}:")


async def test_the_key_is_read_for_every_request(tmp_path: Path) -> None:
    script = answering(Reply())
    path = tmp_path / "id_ed25519"
    async with cloud(script, who=Identity.of_file(path)) as it:
        for _ in range(2):
            ensure_key_pair(path, lambda _: None)
            await (await it.forward("POST", "/api/chat", "", [], b"{}")).aclose()
            path.unlink()
        with pytest.raises(Unauthorized):
            await it.forward("POST", "/api/chat", "", [], b"{}")
    first, second = (s.headers["authorization"].partition(":")[0] for s in script.requests)
    assert first != second


async def test_without_a_key_nothing_is_sent() -> None:
    script = Script()
    async with cloud(script, who=identity(no_key)) as it:
        with pytest.raises(Unauthorized) as caught:
            await it.forward("POST", "/api/chat", "", [], b"{}")
    assert (caught.value.status, caught.value.members) == (401, {"error": "unauthorized"})


async def test_a_signature_that_fails_shows_where_to_sign_in() -> None:
    keys = [KeyUnavailable("busy")]

    def load() -> SigningKey:
        if keys:
            raise keys.pop()
        return signing_key()

    async with cloud(Script(), who=identity(load)) as it:
        with pytest.raises(Unauthorized) as caught:
            await it.forward("POST", "/api/chat", "", [], b"{}")
    assert caught.value.members == {"error": "unauthorized", "signin_url": SIGNIN}


async def test_a_cloud_that_cannot_be_reached() -> None:
    script = answering(Fail("dial tcp: lookup ollama.com: no such host"))
    async with cloud(script) as it:
        with pytest.raises(OllamadError) as caught:
            await it.forward("POST", "/api/chat", "secret=1", [], b"{}")
    assert caught.value.status == 502
    assert "dial tcp: lookup ollama.com: no such host" in caught.value.message
    assert "secret=1" not in caught.value.message
    assert PUB not in caught.value.message


async def test_a_redirect_is_the_answer() -> None:
    script = answering(Reply(307, {"Location": "https://evil.test/"}))
    async with cloud(script) as it:
        upstream = await it.forward("POST", "/api/chat", "", [], b"{}")
        await upstream.aclose()
    assert upstream.status == 307
    assert len(script.requests) == 1


async def test_another_protocol_is_no_answer() -> None:
    script = answering(Reply(101))
    async with cloud(script) as it:
        with pytest.raises(OllamadError, match="101") as caught:
            await it.forward("POST", "/api/chat", "", [], b"{}")
    assert caught.value.status == 502
    assert script.open == 0


async def test_pieces_come_as_they_arrive(autojump_clock: trio.testing.MockClock) -> None:
    script = answering(Reply(body=[b"a", Wait(700), b"b", CUT]))
    async with cloud(script) as it:
        upstream = await it.forward("POST", "/api/chat", "", [], b"{}")
        pieces = upstream.chunks()
        assert await anext(pieces) == b"a"
        assert trio.current_time() < 700
        assert await anext(pieces) == b"b"
        with pytest.raises(TransportError):
            await anext(pieces)
        await upstream.aclose()
    assert script.open == 0


async def test_closing_ends_it_wherever_it_is(autojump_clock: trio.testing.MockClock) -> None:
    script = answering(Reply(body=[b"a", STALL]))
    async with cloud(script) as it:
        upstream = await it.forward("POST", "/api/chat", "", [], b"{}")
        with trio.move_on_after(5):
            async for _ in upstream.chunks():
                pass
        await upstream.aclose()
    assert script.open == 0


@pytest.mark.parametrize("operation", [NO_MODEL, NO_DETAILS])
async def test_a_disabled_cloud(operation: str) -> None:
    async with cloud(Script(), disabled=True) as it:
        with pytest.raises(Forbidden) as caught:
            it.check(operation)
    assert caught.value.status == 403
    assert caught.value.message == f"ollama cloud is disabled: {operation}"


# --- what the daemon reads itself -----------------------------------------------------------------


async def test_reading() -> None:
    script = answering(Reply(body=b"{}"))
    async with cloud(script) as it:
        assert await it.read("GET", "/api/tags", limit=2, timeout=3) == b"{}"
    (seen,) = script.requests
    assert seen.url == f"{BASE}/api/tags?ts={NOW}"
    headers = dict(seen.headers)
    assert headers.pop("authorization") == signing_key().authorization(
        f"GET,/api/tags?ts={NOW}".encode()
    )
    assert headers.pop("user-agent").startswith("ollama/")
    assert headers == {
        "accept": "application/json",
        "accept-encoding": "identity",
        "x-ollama-client-version": "0.33.0",
    }
    assert script.open == 0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, body=b"{}"),
        Reply(307, {"Location": f"{BASE}/api/other"}),
        Reply(204),
        Reply(body=b"{} "),
        Reply(body=[b"{", CUT]),
        Reply(body=[b"{", STALL]),
        Reply(after=4),
        Fail(),
    ],
)
async def test_what_cannot_be_read(autojump_clock: trio.testing.MockClock, reply: Any) -> None:
    script = answering(reply)
    async with cloud(script) as it:
        with pytest.raises(OllamadError):
            await it.read("GET", "/api/tags", limit=2, timeout=3)
        assert trio.current_time() <= 3
    assert script.open == 0
    assert len(script.requests) == 1


async def test_a_disabled_cloud_is_not_read() -> None:
    async with cloud(Script(), disabled=True) as it:
        with pytest.raises(Forbidden):
            await it.read("GET", "/api/tags", limit=2, timeout=3)


# --- details of models ----------------------------------------------------------------------------


@asynccontextmanager
async def details(script: Script) -> AsyncIterator[Details]:
    async with cloud(script) as it, trio.open_nursery() as nursery:
        yield Details(it, nursery)


async def test_details_are_known_once_they_were_heard() -> None:
    async with details(Script()) as known:
        assert known.get("k") is None
        known.put("k", b"1")
        assert known.get("k") == b"1"
        assert known.get("other") is None
        known.forget()
        assert known.get("k") is None


async def test_old_details_are_served_and_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = answering(Reply(body=b"2", after=1), Reply(500), Reply(body=b"3"))
    async with details(script) as known:
        known.put("k", b"1")
        await trio.sleep(4.9)
        assert known.get("k") == b"1"
        await trio.sleep(0.2)
        assert script.requests == []
        assert known.get("k") == b"1"
        assert known.get("k") == b"1"
        await trio.sleep(2)
        assert len(script.requests) == 1
        assert known.get("k") == b"2"
        await trio.sleep(5)
        known.get("k")
        await trio.sleep(1)
        assert known.get("k") == b"2"  # a failure changes nothing
        await trio.sleep(5)
        known.get("k")
        await trio.sleep(1)
        assert known.get("k") == b"3"
    assert [seen.at for seen in script.requests] == pytest.approx([5.1, 12.1, 18.1])
    assert {(s.method, s.path, s.body) for s in script.requests} == {
        (
            "POST",
            f"/api/show?ts={NOW}",
            b'{"model":"k","system":"","template":"","verbose":false,"options":null,"name":""}',
        )
    }


async def test_what_is_remembered_is_bounded() -> None:
    async with details(Script()) as known:
        known.put("long", bytes(LONGEST + 1))
        assert known.get("long") is None
        for number in range(257):
            known.put(str(number), b"x")
        assert known.get("0") is None
        assert known.get("1") == known.get("256") == b"x"
