"""Pull and push on the wire: what is asked for, and each form of an answer (http-api.md 15)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from ollamad.api.library import post_pull, post_push
from ollamad.api.routing import Route
from ollamad.errors import OllamadError
from ollamad.store.names import Name
from ollamad.wire import Progress
from tests.unit.api.served import Answer, application, read_answer, served

OFFICIAL = "https://registry.ollama.ai"
LIBRARY = f"{OFFICIAL}/library/"


class Registry:
    """Tells what it was asked for, then ``events``; an error in the list ends it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []
        self.events: list[Progress | OllamadError] = [
            Progress(status="pulling manifest"),
            Progress(status="pulling 0123", digest="sha256:0123", total=9, completed=0),
            Progress(status="success"),
        ]
        self.closed = trio.Event()

    async def _tell(self, what: str, name: Name, insecure: bool) -> AsyncGenerator[Progress, None]:
        self.asked.append((what, f"{name.scheme}://{name}", insecure))
        try:
            for event in self.events:
                if isinstance(event, OllamadError):
                    raise event
                yield event
        finally:
            self.closed.set()

    def pull(self, name: Name, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        return self._tell("pull", name, insecure)

    def push(self, name: Name, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        return self._tell("push", name, insecure)


class Client:
    def __init__(self, app: Any, registry: Registry) -> None:
        self.app = app
        self.registry = registry

    async def post(self, path: str, body: Any) -> Answer:
        async with await self.app.connect() as stream:
            await stream.send_all(request(path, body))
            return await read_answer(stream)


def request(path: str, body: Any) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


@asynccontextmanager
async def _client() -> AsyncIterator[Client]:
    app = application(Route("POST", "/api/pull", post_pull), Route("POST", "/api/push", post_push))
    registry = Registry()
    app.services = SimpleNamespace(registry=registry, settings=app.services.settings)
    async with served(app) as running:
        yield Client(running, registry)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with _client() as client:
        yield client


def lines(answer: Answer) -> list[Any]:
    assert answer.body.endswith(b"\n")
    return [json.loads(line) for line in answer.body.splitlines()]


async def test_a_stream_of_progress(client: Client) -> None:
    answer = await client.post("/api/pull", {"model": "m"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.body == (
        b'{"status":"pulling manifest"}\n'
        b'{"status":"pulling 0123","digest":"sha256:0123","total":9}\n'
        b'{"status":"success"}\n'
    )


async def test_the_last_one_alone(client: Client) -> None:
    answer = await client.post("/api/pull", {"model": "m", "stream": False})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == {"status": "success"}


async def test_whatever_comes_last(client: Client) -> None:
    client.registry.events.append(Progress(status="one more thing"))
    answer = await client.post("/api/pull", {"model": "m", "stream": False})
    assert json.loads(answer.body) == {"status": "one more thing"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
async def test_an_error_that_comes_first(client: Client, path: str, stream: bool) -> None:
    client.registry.events = [OllamadError("insecure protocol http")]
    answer = await client.post(path, {"model": "m", "stream": stream})
    assert (answer.status, answer.headers["content-type"]) == (500, "application/json")
    assert json.loads(answer.body) == {"error": "insecure protocol http"}


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
async def test_an_error_that_comes_later(client: Client, path: str) -> None:
    error = OllamadError("pull model manifest: file does not exist")
    client.registry.events[1:] = [error]
    answer = await client.post(path, {"model": "m"})
    assert answer.status == 200
    assert lines(answer) == [{"status": "pulling manifest"}, {"error": error.message}]
    answer = await client.post(path, {"model": "m", "stream": False})
    assert answer.status == 500
    assert json.loads(answer.body) == {"error": error.message}


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"model": "m"}, ("pull", LIBRARY + "m:latest", False)),
        ({"name": "m"}, ("pull", LIBRARY + "m:latest", False)),
        (
            {"model": "a", "name": "b"},
            ("pull", LIBRARY + "a:latest", False),
        ),
        ({"model": "http://h:5/u/M:T"}, ("pull", "http://h:5/u/M:T", False)),
        ({"model": "h:5/u/m", "insecure": True}, ("pull", "https://h:5/u/m:latest", True)),
        ({"model": "m:local"}, ("pull", LIBRARY + "m:latest", False)),
        (
            {"model": "gpt-oss:20b:cloud"},
            ("pull", LIBRARY + "gpt-oss:20b-cloud", False),
        ),
        (
            {"model": "gpt-oss:20b-cloud"},
            ("pull", LIBRARY + "gpt-oss:20b-cloud", False),
        ),
        (
            {"model": "qwen3:cloud"},
            ("pull", LIBRARY + "qwen3:cloud", False),
        ),
        (
            {"model": "m", "username": "u", "password": "p"},
            ("pull", LIBRARY + "m:latest", False),
        ),
    ],
)
async def test_what_is_pulled(client: Client, body: Any, asked: tuple[str, str, bool]) -> None:
    await client.post("/api/pull", body)
    assert client.registry.asked == [asked]


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"model": "u/m"}, ("push", OFFICIAL + "/u/m:latest", False)),
        (
            {"name": "u/m", "insecure": True},
            ("push", OFFICIAL + "/u/m:latest", True),
        ),
        # Neither read as a source nor refused here: the stream tells.
        ({"model": "m:cloud"}, ("push", LIBRARY + "m:cloud", False)),
        ({"model": "a b"}, ("push", LIBRARY + "a b:latest", False)),
    ],
)
async def test_what_is_pushed(client: Client, body: Any, asked: tuple[str, str, bool]) -> None:
    assert (await client.post("/api/push", body)).status == 200
    assert client.registry.asked == [asked]


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/api/pull", b"", "missing request body"),
        ("/api/pull", {}, "invalid model name"),
        ("/api/pull", b"null", "invalid model name"),
        ("/api/pull", {"model": " "}, "invalid model name"),
        ("/api/pull", {"model": "localhost:5000/m"}, "invalid model name"),
        ("/api/pull", {"model": "m@sha256-0"}, "invalid model name"),
        ("/api/pull", {"model": ":cloud"}, "invalid model name"),
        (
            "/api/pull",
            {"model": "m:cloud:local"},
            'use either :local or :cloud, not both: "m:cloud:local"',
        ),
        ("/api/push", b"", "missing request body"),
        ("/api/push", {}, "model is required"),
        ("/api/push", b"null", "model is required"),
    ],
)
async def test_what_is_refused(client: Client, path: str, body: Any, text: str) -> None:
    answer = await client.post(path, body)
    assert (answer.status, json.loads(answer.body)) == (400, {"error": text})
    assert client.registry.asked == []


@pytest.mark.parametrize("stream", [True, False])
async def test_whoever_leaves_stops_it(client: Client, stream: bool) -> None:
    waits = trio.Event()

    async def endless(name: Name, *, insecure: bool) -> AsyncGenerator[Progress, None]:
        try:
            yield Progress(status="pulling manifest")
            waits.set()
            await trio.sleep_forever()
        finally:
            client.registry.closed.set()

    client.registry.pull = endless  # type: ignore[method-assign,assignment]
    async with await client.app.connect() as connection:
        await connection.send_all(request("/api/pull", {"model": "m", "stream": stream}))
        await waits.wait()
    with trio.fail_after(5):
        await client.registry.closed.wait()
