"""The official SDK pushes to a real registry and pulls from it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import ollama
import pytest
from support.daemon import Daemon
from support.models import smollm2
from support.registry import DockerRegistry, serving

OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 8}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with serving(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def test_push_and_pull(daemon: Daemon, registry: DockerRegistry) -> None:
    client = ollama.Client(host=daemon.url)
    name = f"{registry.host}/sdk/smol:v1"
    client.create(name, from_="smollm2", system="Answer in one word.")
    before = client.generate(name, "Say hello.", options=OPTIONS).response
    shown = client.show(name)

    events = list(client.push(name, insecure=True, stream=True))
    assert [e.status for e in (events[0], *events[-2:])] == [
        "retrieving manifest",
        "pushing manifest",
        "success",
    ]
    last = {e.digest: e for e in events if e.digest}
    assert max(e.total or 0 for e in last.values()) == smollm2().stat().st_size
    assert all(e.completed == e.total for e in last.values())
    assert client.push(name, insecure=True).status == "success"

    client.delete(name)
    with pytest.raises(ollama.ResponseError):
        client.show(name)
    events = list(client.pull(name, insecure=True, stream=True))
    assert events[0].status == "pulling manifest"
    assert [e.status for e in events[-3:]] == [
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert {e.digest for e in events if e.digest} == set(last)
    assert client.pull(name, insecure=True).status == "success"
    again = client.show(name)
    assert (again.modelfile, again.details) == (shown.modelfile, shown.details)
    assert client.generate(name, "Say hello.", options=OPTIONS).response == before
    client.delete(name)


def test_errors(daemon: Daemon, registry: DockerRegistry) -> None:
    client = ollama.Client(host=daemon.url)
    unknown = f"{registry.host}/sdk/unknown"
    with pytest.raises(ollama.ResponseError) as error:
        client.pull(unknown, insecure=True)
    assert error.value.error == "pull model manifest: file does not exist"
    assert error.value.status_code == 500
    with pytest.raises(ollama.ResponseError) as error:
        list(client.pull(unknown, insecure=True, stream=True))
    assert error.value.error == "pull model manifest: file does not exist"
    with pytest.raises(ollama.ResponseError) as error:
        client.push(unknown, insecure=True)
    assert "no such file or directory" in error.value.error
    with pytest.raises(ollama.ResponseError) as error:
        client.pull("a b c")
    assert (error.value.status_code, error.value.error) == (400, "invalid model name")


def test_async_push_and_pull(daemon: Daemon, registry: DockerRegistry) -> None:
    client = ollama.AsyncClient(host=daemon.url)
    name = f"{registry.host}/sdk/async"

    async def scenario() -> None:
        await client.create(name, from_="smollm2", system="Be brief.")
        pushed = [e async for e in await client.push(name, insecure=True, stream=True)]
        assert pushed[-1].status == "success"
        await client.delete(name)
        # Two at once on one client.
        both = await asyncio.gather(*(client.pull(name, insecure=True) for _ in range(2)))
        assert [e.status for e in both] == ["success", "success"]
        assert (await client.show(name)).details is not None
        await client.delete(name)

    asyncio.run(scenario())
