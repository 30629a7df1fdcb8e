"""Pull and push as the daemon asks for them: names, schemes, the end of the daemon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from fetching import content, digest_of, jumping_clock, layer, served
from support.scripted_http import Reply, Script, Wait
from trio.abc import Clock

from ollamad.errors import OllamadError
from ollamad.registry.service import Registry
from ollamad.settings import Settings
from ollamad.store.manifest import Manifest
from ollamad.store.name_locks import NameLocks
from ollamad.store.names import Name
from ollamad.store.store import Store

DATA = content(250)


class Daemon:
    def __init__(self, root: Path, nursery: trio.Nursery, script: Script) -> None:
        self.script = script
        self.store = Store(root / "models")
        settings = Settings.from_environ({"HOME": str(root)})
        self.http = script.http()
        self.registry = Registry(self.store, self.http, settings, nursery, NameLocks())

    def serve(self, base: str, tag: str = "latest", **reply: Any) -> None:
        """A model of one layer at ``base``, the repository's URL; ``reply`` changes its blob's."""
        raw = json.dumps({"layers": [layer(DATA)]}).encode()
        self.script.on("GET", f"{base}/manifests/{tag}", Reply(body=raw))
        blob = f"{base}/blobs/{digest_of(DATA)}"
        self.script.on("HEAD", blob, Reply(200, {"Content-Length": "250"}))
        self.script.on("GET", blob, served(DATA, **reply))

    async def pull(self, name: str, **options: Any) -> list[str]:
        async with aclosing(self.registry.pull(Name.parse(name), **options)) as events:
            return [event.status async for event in events if not event.digest]

    async def push(self, name: str, statuses: list[str]) -> None:
        async with aclosing(self.registry.push(Name.parse(name))) as events:
            async for event in events:
                statuses.append(event.status)


@pytest.fixture
def mock_clock() -> Clock:
    return jumping_clock()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with trio.open_nursery() as nursery:
        yield Daemon(tmp_path, nursery, Script())
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("name", "insecure", "base"),
    [
        ("m", False, "https://registry.ollama.ai/v2/library/m"),
        ("u/m", False, "https://registry.ollama.ai/v2/u/m"),
        ("h.test:5000/u/m", False, "https://h.test:5000/v2/u/m"),
        ("h.test:5000/u/m", True, "http://h.test:5000/v2/u/m"),
        ("https://h.test/u/m", True, "http://h.test/v2/u/m"),
        ("http://h.test/u/m", True, "http://h.test/v2/u/m"),
        ("hf.co/Bart/Llama-3.2-GGUF", False, "https://hf.co/v2/Bart/Llama-3.2-GGUF"),
    ],
)
async def test_where_a_name_leads(
    mock_clock: Clock, daemon: Daemon, name: str, insecure: bool, base: str
) -> None:
    daemon.serve(base)
    assert (await daemon.pull(name, insecure=insecure))[-1] == "success"
    assert daemon.store.has_manifest(Name.parse(name))


async def test_http_without_insecure_asks_nobody(mock_clock: Clock, daemon: Daemon) -> None:
    with pytest.raises(OllamadError) as caught:
        await daemon.pull("http://h.test/u/m")
    assert (caught.value.status, caught.value.message) == (500, "insecure protocol http")
    assert daemon.script.requests == []
    daemon.store.write_manifest(Name.parse("h.test/u/m"), Manifest())
    with pytest.raises(OllamadError, match="insecure protocol http"):
        await daemon.push("http://h.test/u/m", [])


async def test_a_name_is_asked_for_as_it_is_stored(mock_clock: Clock, daemon: Daemon) -> None:
    """After ``create Foo/bar`` a pull of ``fOO/BAR`` is of that model."""
    daemon.store.write_manifest(Name.parse("Foo/bar"), Manifest())
    daemon.serve("https://registry.ollama.ai/v2/Foo/bar")
    await daemon.pull("fOO/BAR")
    assert [str(name) for name, _ in daemon.store.manifests()] == [
        "registry.ollama.ai/Foo/bar:latest"
    ]


async def test_parts_of_names_are_taken_over_too(mock_clock: Clock, daemon: Daemon) -> None:
    daemon.store.write_manifest(Name.parse("H2.test/Ns/Md:Tg"), Manifest())
    daemon.serve("https://h.test/v2/Ns/Mixed")
    await daemon.pull("h.test/ns/Mixed")
    assert daemon.store.has_manifest(Name.parse("h.test/Ns/Mixed"))


async def test_a_push_that_has_nothing_to_send(mock_clock: Clock, daemon: Daemon) -> None:
    for name, text in [
        ("h.test/u/m", "no such file or directory"),
        ("localhost:5000/m", "unqualified name: registry.ollama.ai/localhost:5000/m:latest"),
    ]:
        statuses: list[str] = []
        with pytest.raises(OllamadError, match=text):
            await daemon.push(name, statuses)
        assert statuses == ["retrieving manifest", "couldn't retrieve manifest"]
    assert daemon.script.requests == []


async def test_the_daemons_end_is_an_error_and_loses_nothing(
    mock_clock: Clock, tmp_path: Path
) -> None:
    errors: list[str] = []
    async with trio.open_nursery() as clients, trio.open_nursery() as nursery:
        daemon = Daemon(tmp_path, nursery, Script())
        daemon.serve("https://h.test/v2/u/m", steps=lambda p: [p[:100], Wait(1000), p[100:]])

        async def client() -> None:
            with pytest.raises(OllamadError) as caught:
                await daemon.pull("h.test/u/m")
            errors.append(caught.value.message)

        clients.start_soon(client)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert errors == ["server is shutting down"]
    assert daemon.script.open == 0
    [note] = daemon.store.partial(digest_of(DATA)).notes()
    assert b'"Completed":100' in note
