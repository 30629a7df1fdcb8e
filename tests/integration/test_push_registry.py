"""Pushes to Debian's ``docker-registry``, in small parts and over connections that break."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import h11
import pytest
import trio
from support.gateway import Exchange, Gateway, serving
from support.push_stage import Pushed, layer_of, make_model, new_store
from support.registry import DockerRegistry
from support.registry import serving as serving_registry
from support.scripted_http import signing_key

from ollamad.errors import OllamadError
from ollamad.registry.client import Session
from ollamad.registry.http import Http
from ollamad.registry.push import push_events
from ollamad.registry.sharing import Shared
from ollamad.registry.tensor_plan import TensorTiming
from ollamad.registry.upload import UploadTiming
from ollamad.store.manifest import MEDIA_TENSOR
from ollamad.store.names import Name
from ollamad.store.store import Store

PART = 1_000_000
TIMING = UploadTiming(
    least_part=PART,
    most_part=PART,
    first_delay=0.01,
    stall=1.0,
    tensors=TensorTiming(least_part=PART, most_part=PART),
)
CONTENT = os.urandom(3 * PART + 17)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with serving_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


async def push(store: Store, name: Name, timing: UploadTiming = TIMING) -> Pushed:
    pushed = Pushed()
    async with Http.from_environ({}) as http, trio.open_nursery() as nursery:
        session = Session(http, name, insecure=True, load_key=signing_key)
        events = push_events(store, session, name, uploads=Shared(nursery), timing=timing)
        try:
            async with aclosing(events):
                async for event in events:
                    pushed.events.append(event)
        except OllamadError as error:
            pushed.error = error
    return pushed


async def pushed_whole(store: Store, name: Name, timing: UploadTiming = TIMING) -> Pushed:
    pushed = await push(store, name, timing)
    assert pushed.error is None, pushed.error.message
    assert pushed.statuses[-1] == "success"
    return pushed


def check_stored(registry: DockerRegistry, store: Store, name: Name) -> None:
    manifest = store.read_manifest(name)
    stored = registry.get_manifest(name.repository)
    assert stored == manifest.raw.removesuffix(b"\n")
    for digest in manifest.manifest.references():
        assert registry.blob_file(digest).read_bytes() == store.blob_path(digest).read_bytes()


def kinds(gateway: Gateway) -> list[str]:
    return [seen.method for seen in gateway.seen]


async def test_parts_an_empty_blob_and_once_more(registry: DockerRegistry, store: Store) -> None:
    gateway = Gateway(registry.port)
    async with serving(gateway):
        name = Name.parse(f"{gateway.host}/acme/parts:Q4_K_M")
        make_model(store, [layer_of(store, CONTENT), layer_of(store, b"")], name=name)
        pushed = await pushed_whole(store, name)
        one = ["HEAD", "POST", "PATCH", "PUT"]
        assert kinds(gateway) == [
            *("HEAD", "POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"),
            *("HEAD", "POST", "PUT"),
            *one,
            "PUT",
        ]
        assert pushed.of(DIGEST)[-1] == (len(CONTENT), len(CONTENT))
        assert registry.get_manifest("acme/parts", "Q4_K_M") == store.read_manifest(
            name
        ).raw.removesuffix(b"\n")
        assert registry.blob_file(DIGEST).read_bytes() == CONTENT

        gateway.seen.clear()
        again = await pushed_whole(store, name)
        assert again.statuses == pushed.statuses
        assert kinds(gateway) == ["HEAD", "HEAD", "HEAD", "PUT"]


async def test_one_connection_carries_a_push(registry: DockerRegistry, store: Store) -> None:
    connections = 0

    class Counting(Gateway):
        async def _client(self, stream: trio.SocketStream) -> None:
            nonlocal connections
            connections += 1
            await super()._client(stream)

    gateway = Counting(registry.port)
    async with serving(gateway):
        name = Name.parse(f"{gateway.host}/acme/connections")
        make_model(store, [layer_of(store, os.urandom(2 * PART))], name=name)
        await pushed_whole(store, name)
    assert connections == 1


async def test_relative_locations(tmp_path: Path, store: Store) -> None:
    with serving_registry(tmp_path / "registry", {"relativeurls": True}) as registry:
        name = Name.parse(f"{registry.host}/acme/relative")
        make_model(store, [layer_of(store, CONTENT)], name=name)
        await pushed_whole(store, name)
        check_stored(registry, store, name)


class Cutting(Gateway):
    """Ends the connection in the PATCHes whose numbers are in ``cuts``, after ``kept`` bytes of the
    body, which the registry gets and keeps."""

    def __init__(self, upstream: int, cuts: set[int], kept: int, *, reset: bool) -> None:
        super().__init__(upstream)
        self.cuts = cuts
        self.kept = kept
        self.reset = reset
        self.patches = 0

    async def handle(self, exchange: Exchange) -> None:
        if exchange.method == "PATCH":
            self.patches += 1
            if self.patches in self.cuts:
                await self._cut(exchange)
                return
        await exchange.forward()

    async def _cut(self, exchange: Exchange) -> None:
        behind = await self.connect()
        headers = [(name, value) for name, value in exchange.headers.items()]
        await behind.send(h11.Request(method="PATCH", target=exchange.target, headers=headers))
        left = self.kept
        async for chunk in exchange.chunks():
            await behind.send(h11.Data(data=chunk[:left]))
            left -= len(chunk[:left])
            if not left:
                break
        await behind.close()
        await exchange.drop(reset=self.reset)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_cut_in_a_part(
    registry: DockerRegistry, store: Store, reset: bool
) -> None:
    """The registry keeps some of the part, so its session is useless: another one does it."""
    content = os.urandom(3 * PART)
    gateway = Cutting(registry.port, {2, 5}, 300_000, reset=reset)
    async with serving(gateway):
        name = Name.parse(f"{gateway.host}/acme/cut{reset:d}".lower())
        make_model(store, [layer_of(store, content)], name=name)
        pushed = await pushed_whole(store, name)
        check_stored(registry, store, name)
    ranges = [seen.headers["content-range"] for seen in gateway.requests("PATCH")]
    first, second, third = "0-999999", "1000000-1999999", "2000000-2999999"
    # Cut in the second part of one session and in the last of the next; then comes the config.
    sessions = [[first, second], [first, second, third], [first, second, third], ["0-2"]]
    assert ranges == [part for session in sessions for part in session]
    assert len(gateway.requests("POST")) == len(sessions)
    total = len(content)
    assert pushed.of("sha256:" + hashlib.sha256(content).hexdigest())[-1] == (total, total)


async def test_a_part_that_nobody_reads(registry: DockerRegistry, store: Store) -> None:
    class Stalling(Gateway):
        stalled = False

        async def handle(self, exchange: Exchange) -> None:
            if exchange.method == "PATCH" and not self.stalled:
                self.stalled = True
                await trio.sleep(60)
            await exchange.forward()

    # More than the kernels take without a reader.
    content = os.urandom(20_000_000)
    gateway = Stalling(registry.port)
    timing = UploadTiming(least_part=20_000_000, first_delay=0.01, stall=0.5)
    async with serving(gateway):
        name = Name.parse(f"{gateway.host}/acme/stalled")
        make_model(store, [layer_of(store, content)], name=name)
        await pushed_whole(store, name, timing)
        check_stored(registry, store, name)
    assert gateway.stalled


async def test_a_blob_of_another_model_is_mounted(registry: DockerRegistry, store: Store) -> None:
    base = Name.parse(f"{registry.host}/acme/base")
    make_model(store, [layer_of(store, CONTENT)], name=base)
    await pushed_whole(store, base)
    gateway = Gateway(registry.port)
    async with serving(gateway):
        name = Name.parse(f"{gateway.host}/acme/derived")
        make_model(store, [layer_of(store, CONTENT, from_=base.full)], config=None, name=name)
        pushed = await push(store, name)
        assert kinds(gateway)[:3] == ["HEAD", "POST", "PUT"]
        assert gateway.seen[1].status == 201
        assert pushed.of(DIGEST) == [(len(CONTENT), len(CONTENT))]
        # Such a registry wants a config, and says so.
        assert pushed.error is not None
        assert pushed.error.message.startswith('400: {"errors":[{"code":"')


async def test_a_blob_to_mount_that_is_not_there(registry: DockerRegistry, store: Store) -> None:
    name = Name.parse(f"{registry.host}/acme/unmounted")
    make_model(store, [layer_of(store, os.urandom(1000), from_="no/such:model")], name=name)
    await pushed_whole(store, name)
    check_stored(registry, store, name)


async def test_a_name_that_the_registry_does_not_like(
    registry: DockerRegistry, store: Store
) -> None:
    name = Name.parse(f"{registry.host}/acme/Upper")
    make_model(store, [layer_of(store, b"x")], name=name)
    pushed = await push(store, name)
    assert pushed.error is not None
    assert pushed.error.message == "file does not exist"


async def test_a_registry_that_has_gone(tmp_path: Path, store: Store) -> None:
    with serving_registry(tmp_path / "registry") as registry:
        name = Name.parse(f"{registry.host}/acme/gone")
    make_model(store, [layer_of(store, b"x")], name=name)
    pushed = await push(store, name)
    assert pushed.error is not None
    assert pushed.error.message.startswith(f'Head "http://{name.host}/v2/acme/gone/blobs/')
    assert "connection refused" in pushed.error.message


async def test_layers_of_tensors(registry: DockerRegistry, store: Store) -> None:
    gateway = Gateway(registry.port)
    async with serving(gateway):
        name = Name.parse(f"{gateway.host}/acme/tensors")
        layers = [
            layer_of(store, os.urandom(size), MEDIA_TENSOR, name=f"t{size}")
            for size in (0, 1, 1000, 2 * PART + 1, *range(50_000, 50_040))
        ]
        make_model(store, layers, name=name)
        pushed = await pushed_whole(store, name)
        assert pushed.statuses == ["retrieving manifest", "pushing model", "success"]
        assert registry.get_manifest("acme/tensors") == store.read_manifest(name).raw
        for layer in layers:
            stored = registry.blob_file(layer.digest).read_bytes()
            assert stored == store.blob_path(layer.digest).read_bytes()
        assert len(gateway.requests("POST")) == len(layers) + 1

        gateway.seen.clear()
        await pushed_whole(store, name)
        assert set(kinds(gateway)) == {"HEAD", "PUT"}
        assert kinds(gateway).count("PUT") == 1


class Redirecting(Gateway):
    """A registry that sends each part to a store, and says so before it has read the part, as
    servers do that close the connection then."""

    def __init__(self, store: Gateway, *, early: bool) -> None:
        super().__init__(None)
        self.store = store
        self.early = early

    async def handle(self, exchange: Exchange) -> None:
        uploads = "/v2/acme/m/blobs/uploads/"
        if exchange.method == "HEAD":
            await exchange.answer(404)
        elif exchange.method == "POST":
            await exchange.answer(202, headers=[("Docker-Upload-Location", f"{uploads}U?n=1")])
        elif exchange.method == "PATCH":
            number = int(exchange.query.removeprefix("n="))
            headers = [
                ("Location", f"{self.store.url}/part{number}?sig=%2f"),
                ("Docker-Upload-Location", f"{uploads}U?n={number + 1}"),
            ]
            if self.early:
                await exchange.answer(307, headers=[*headers, ("Connection", "close")])
                await exchange.drop()
            else:
                await exchange.body()
                await exchange.answer(307, headers=headers)
        else:
            await exchange.body()
            await exchange.answer(201)


class Parts(Gateway):
    """A store that keeps bodies by path; the first ``broken`` connections break in the middle."""

    def __init__(self, broken: int) -> None:
        super().__init__(None)
        self.broken = broken
        self.bodies: dict[str, bytes] = {}

    async def handle(self, exchange: Exchange) -> None:
        if self.broken:
            self.broken -= 1
            async for _ in exchange.chunks():
                break
            await exchange.drop(reset=True)
            return
        self.bodies[exchange.path] = await exchange.body()
        await exchange.answer(200)


@pytest.mark.parametrize("early", [False, True])
async def test_parts_in_a_store(store: Store, early: bool) -> None:
    parts = Parts(broken=2)
    gateway = Redirecting(parts, early=early)
    async with serving(parts, gateway):
        name = Name.parse(f"{gateway.host}/acme/m")
        make_model(store, [layer_of(store, CONTENT)], config=None, name=name)
        pushed = await pushed_whole(store, name)
    assert b"".join(parts.bodies[f"/part{n}"] for n in range(1, 5)) == CONTENT
    assert len(gateway.requests("PATCH")) == 4
    assert all(seen.query == "sig=%2f" for seen in parts.seen)
    commit = gateway.requests("PUT", "digest=")[0]
    assert commit.target.endswith("-4&n=5")
    assert pushed.of(DIGEST)[-1] == (len(CONTENT), len(CONTENT))
