"""A model from a scripted registry: events, errors, what is stored (registry-and-store 3)."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from fetching import (
    BASE,
    REGISTRY,
    World,
    content,
    digest_of,
    jumping_clock,
    layer,
    served,
    world_in,
)
from support.scripted_http import CUT, Fail, Reply, Seen, Wait
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from ollamad.errors import OllamadError
from ollamad.registry.download import Timing
from ollamad.registry.parts import Part, encode_part
from ollamad.registry.pull import wanted_blobs
from ollamad.store.errors import os_error_text
from ollamad.store.manifest import Layer, Manifest
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import Progress

WEIGHTS, TEMPLATE, CONFIG = content(250), b"{{ .Prompt }}", b'{"model_format":"gguf"}'
URL = f"{BASE}/manifests/latest"
END = ["verifying sha256 digest", "writing manifest", "success"]


@pytest.fixture
def mock_clock() -> Clock:
    return jumping_clock()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as world:
        yield world


def whole(data: bytes) -> Progress:
    digest = digest_of(data)
    return Progress(
        status=f"pulling {digest[7:19]}", digest=digest, total=len(data), completed=len(data)
    )


def said(*items: str | bytes) -> list[Progress]:
    """Events: texts, and blobs that are there."""
    return [whole(i) if isinstance(i, bytes) else Progress(status=i) for i in items]


def serve(world: World, *contents: bytes, config: bytes | None = CONFIG) -> bytes:
    """A model on the registry; its manifest."""
    for data in (*contents, *([config] if config is not None else [])):
        world.blob(data)
    return world.manifest(
        *map(layer, contents), config=layer(config) if config is not None else None
    )


async def failure(world: World, name: str = "r.test/ns/m") -> tuple[list[str], str]:
    """The statuses before the error, and the error."""
    events: list[Progress] = []
    with pytest.raises(OllamadError) as caught:
        await world.pull(name, events)
    assert caught.value.status == 500
    assert world.script.open == 0
    return [event.status for event in events], caught.value.message


def stored_manifest(world: World, name: str = "r.test/ns/m") -> bytes:
    return world.store.manifest_path(Name.parse(name)).read_bytes()


# --- events and order -----------------------------------------------------------------------------


async def test_the_worked_example(mock_clock: Clock, world: World) -> None:
    raw = serve(world, WEIGHTS, TEMPLATE)
    events = await world.pull()
    assert events == said("pulling manifest", WEIGHTS, TEMPLATE, CONFIG, *END)
    assert stored_manifest(world) == raw
    assert [seen.method for seen in world.script.requests] == ["GET", *["HEAD", "GET", "GET"] * 3]
    asked = world.script.requests[0]
    accept = "application/vnd.docker.distribution.manifest.v2+json"
    assert (asked.url, asked.headers.get_list("accept")) == (URL, [accept])
    assert asked.headers["user-agent"].startswith("ollama/")
    assert [world.stored(digest_of(data)) for data in (WEIGHTS, TEMPLATE, CONFIG)] == [
        WEIGHTS,
        TEMPLATE,
        CONFIG,
    ]
    assert len(world.files()) == 3


async def test_a_second_pull_asks_for_the_manifest_alone(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS)
    await world.pull()
    path = world.store.manifest_path(Name.parse("r.test/ns/m"))
    os.utime(path, (1, 1))
    world.script.requests.clear()
    assert await world.pull() == said("pulling manifest", WEIGHTS, CONFIG, *END)
    assert [seen.url for seen in world.script.requests] == [URL]
    assert path.stat().st_mtime > 1


async def test_progress_while_bytes_arrive(mock_clock: Clock, world: World) -> None:
    world.blob(WEIGHTS, served(WEIGHTS, lambda p: [p[:100], Wait(1.5), p[100:], Wait(1)]))
    world.manifest(layer(WEIGHTS))
    events = []
    async with aclosing(world.events()) as pulling:
        async for event in pulling:
            events.append((trio.current_time(), event))
    progress = [(at, e) for at, e in events if e.digest]
    assert {e.total for _, e in progress} == {250}
    completed = [e.completed for _, e in progress]
    assert completed == sorted(completed)
    assert completed[0] == 0
    assert 100 in completed
    assert completed[-1] == 250
    gaps = [round(b - a, 3) for (a, _), (b, _) in pairwise(progress)]
    assert set(gaps[:-1]) == {0.06}


@pytest.mark.parametrize(
    "raw",
    [
        b'{\n  "layers": [],\n  "schemaVersion": 2\n}\n',
        b'{"unknown":{"a":1},"layers":null}',
        b"{}",
    ],
)
async def test_the_manifest_is_stored_as_it_came(
    mock_clock: Clock, world: World, raw: bytes
) -> None:
    world.script.on("GET", URL, Reply(body=raw))
    assert await world.pull() == said("pulling manifest", *END)
    assert stored_manifest(world) == raw
    read = world.store.read_manifest(Name.parse("r.test/ns/m"))
    assert read.digest == hashlib.sha256(raw).hexdigest()


async def test_a_compressed_manifest_is_stored_decoded(mock_clock: Clock, world: World) -> None:
    raw = serve(world, WEIGHTS)
    packed = Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(raw))
    world.script.on("GET", URL, packed)
    await world.pull()
    assert stored_manifest(world) == raw


async def test_one_digest_twice_is_fetched_once(mock_clock: Clock, world: World) -> None:
    world.blob(WEIGHTS)
    world.manifest(layer(WEIGHTS), layer(WEIGHTS), config=layer(WEIGHTS))
    events = await world.pull()
    assert events == said("pulling manifest", WEIGHTS, WEIGHTS, WEIGHTS, *END)
    assert len(world.script.asked("HEAD")) == 1


async def test_an_empty_blob(mock_clock: Clock, world: World) -> None:
    serve(world, b"", config=None)
    await world.pull()
    assert world.stored(digest_of(b"")) == b""
    assert world.ranges() == []


async def test_the_scheme_is_http_only_if_that_is_wanted(mock_clock: Clock, world: World) -> None:
    statuses, text = await failure(world, "http://r.test/ns/m")
    assert (statuses, text) == ([], "insecure protocol http")
    assert world.script.requests == []
    world.script.on("GET", "http://r.test/v2/ns/m/manifests/latest", Reply(body=b"{}"))
    for name in ("http://r.test/ns/m", "https://r.test/ns/m"):
        async with aclosing(world.events(name, insecure=True)) as events:
            assert [event.status async for event in events][-1] == "success"


# --- blobs that are there -------------------------------------------------------------------------


def put(world: World, digest: str, data: bytes) -> Path:
    path = world.store.blob_path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


async def test_what_is_there_is_not_read_again(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, config=None)
    path = put(world, digest_of(WEIGHTS), bytes(250))  # of the right size
    os.utime(path, (1, 1))
    assert await world.pull() == said("pulling manifest", WEIGHTS, *END)
    assert world.script.asked("", "blobs") == []
    assert path.read_bytes() == bytes(250)
    # Until the model names it, a prune of another process must not take it.
    assert path.stat().st_mtime > 1


async def test_notes_of_a_blob_that_is_there_go(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, config=None)
    path = put(world, digest_of(WEIGHTS), WEIGHTS)
    path.with_name(f"{path.name}-partial-0").write_bytes(encode_part(Part(0, 0, 250, 250)))
    await world.pull()
    assert world.files() == [path.name]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EROFS])
async def test_another_users_blob_will_do(
    mock_clock: Clock, world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    serve(world, WEIGHTS, config=None)
    put(world, digest_of(WEIGHTS), WEIGHTS)

    def refuse(self: Store, digest: str) -> None:
        raise OSError(number, os.strerror(number), "x")

    monkeypatch.setattr(Store, "touch_blob", refuse)
    assert await world.pull() == said("pulling manifest", WEIGHTS, *END)


async def test_a_disk_that_fails_names_the_blob(
    mock_clock: Clock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(world, WEIGHTS, config=None)
    path = put(world, digest_of(WEIGHTS), WEIGHTS)

    def broken(path: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "utime", broken)
    assert await failure(world) == (["pulling manifest"], f"open {path}: input/output error")


async def test_another_size_than_the_manifests_is_damage(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, config=None)
    put(world, digest_of(WEIGHTS), WEIGHTS[:-1])
    await world.pull()
    assert world.stored(digest_of(WEIGHTS)) == WEIGHTS


async def test_a_manifest_that_does_not_tell_sizes(mock_clock: Clock, world: World) -> None:
    world.blob(WEIGHTS)
    world.manifest({"digest": digest_of(WEIGHTS)})
    assert await world.pull() == said("pulling manifest", WEIGHTS, *END)
    world.script.requests.clear()
    assert await world.pull() == said("pulling manifest", WEIGHTS, *END)
    assert len(world.script.requests) == 1


async def test_a_manifest_that_states_too_much_still_has_its_digests(
    mock_clock: Clock, world: World
) -> None:
    world.blob(WEIGHTS)
    world.manifest({"digest": digest_of(WEIGHTS), "size": 300})
    assert await world.pull() == said("pulling manifest", WEIGHTS, *END)


async def test_a_blob_that_vanishes_is_fetched_again(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, TEMPLATE, config=None)
    answer = served(TEMPLATE)

    def vanish(seen: Seen) -> Any:
        world.store.blob_path(digest_of(WEIGHTS)).unlink()
        return answer(seen)

    world.blob(TEMPLATE, vanish)
    await world.pull()
    assert world.stored(digest_of(WEIGHTS)) == WEIGHTS
    assert world.store.read_manifest(Name.parse("r.test/ns/m"))


async def test_a_blob_that_vanishes_again_and_again(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, TEMPLATE, config=None)
    one, other = (
        world.store.blob_path(digest_of(WEIGHTS)),
        world.store.blob_path(digest_of(TEMPLATE)),
    )
    removals = {WEIGHTS: other, TEMPLATE: one}
    for data, path in removals.items():

        def vanish(seen: Seen, data: bytes = data, path: Path = path) -> Any:
            path.unlink(missing_ok=True)
            return served(data)(seen)

        world.blob(data, *[vanish] * 9)
    _, error = await failure(world)
    assert error == "blobs of the model are removed while it is pulled"
    assert not world.store.has_manifest(Name.parse("r.test/ns/m"))


# --- manifests that cannot be had -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(404, body=b"whatever"), "file does not exist"),
        (Reply(429, {"Retry-After": "1"}, b"slow"), "429: slow"),
        (Reply(500, body=b"oops"), "500: oops"),
        (Reply(403, body=b'{"errors":[{"code":"DENIED"}]}'), '403: {"errors":[{"code":"DENIED"}]}'),
        (Fail("EOF", connected=True), f'Get "{URL}": EOF'),
        (Fail(), f'Get "{URL}": dial tcp: connect: connection refused'),
        (Reply(200, {"Content-Length": "99"}, [b"{", CUT]), "unexpected EOF"),
    ],
)
async def test_no_manifest(mock_clock: Clock, world: World, reply: Any, text: str) -> None:
    world.script.on("GET", URL, reply)
    statuses, error = await failure(world)
    assert (statuses, error) == (["pulling manifest"], f"pull model manifest: {text}")
    assert len(world.script.requests) == 1


async def test_a_manifest_that_leads_to_itself(mock_clock: Clock, world: World) -> None:
    world.script.on("GET", URL, Reply(302, {"Location": URL}))
    _, error = await failure(world)
    assert error == f'pull model manifest: Get "{URL}": stopped after 10 redirects'
    assert len(world.script.requests) == 10


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "unexpected end of JSON input|EOF"),
        (b"nope", "invalid character 'o' in literal null"),
        (b"[]", "json: cannot unmarshal array"),
        (b'"text"', "json: cannot unmarshal string"),
        (b'{"layers":{}}', "json: cannot unmarshal object"),
        (b'{"layers":[1]}', "json: cannot unmarshal number"),
        (b'{"layers":[{"size":1e99}]}', "json: cannot unmarshal number"),
        (b'{"layers":[{"digest":[]}]}', "json: cannot unmarshal array"),
        (b'{"layers":' + b"[" * 100_000, ""),
        (b"\xff\xfe\x00", ""),
    ],
)
async def test_what_is_no_manifest(mock_clock: Clock, world: World, raw: bytes, text: str) -> None:
    world.script.on("GET", URL, Reply(body=raw))
    statuses, error = await failure(world)
    assert statuses == ["pulling manifest"]
    assert error.startswith("pull model manifest: ")
    assert any(each in error for each in text.split("|"))


@pytest.mark.parametrize("packed", [False, True])
async def test_a_manifest_without_end(mock_clock: Clock, world: World, packed: bool) -> None:
    raw = b'{"a":"' + b"x" * 17_000_000
    headers = {"Content-Encoding": "gzip"} if packed else {}
    world.script.on("GET", URL, Reply(200, headers, gzip.compress(raw, 1) if packed else raw))
    _, error = await failure(world)
    assert error == "pull model manifest: the answer is longer than 16777216 bytes"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"digest": "", "size": 1}, "ns/m: digest is empty"),
        ({"size": 1}, "ns/m: digest is empty"),
        ({"digest": "sha256:12", "size": 1}, "invalid digest format"),
        ({"digest": "../../../etc/passwd", "size": 1}, "invalid digest format"),
        ({"digest": digest_of(b"") + "\n", "size": 1}, "invalid digest format"),
        ({"digest": "sha512:" + "0" * 64, "size": 1}, "invalid digest format"),
        ({"digest": digest_of(b""), "size": -1}, f"{digest_of(b'')} has -1 bytes"),
        ({"digest": digest_of(b""), "size": 2**50 + 1}, f"has {2**50 + 1} bytes"),
    ],
)
async def test_impossible_layers_are_refused_before_anything_is_fetched(
    mock_clock: Clock, world: World, fields: dict[str, Any], text: str
) -> None:
    world.blob(WEIGHTS)
    world.manifest(layer(WEIGHTS), fields)
    statuses, error = await failure(world)
    assert statuses == ["pulling manifest"]
    assert text in error
    assert len(world.script.requests) == 1


async def test_an_impossible_config_is_refused_too(mock_clock: Clock, world: World) -> None:
    world.manifest(config={"digest": "sha256:12", "size": 1})
    assert (await failure(world))[1] == "invalid digest format"


async def test_a_config_without_a_digest_is_none(mock_clock: Clock, world: World) -> None:
    world.manifest(config={"digest": "", "size": 7})
    assert await world.pull() == said("pulling manifest", *END)


def test_too_many_layers() -> None:
    one = Layer(media_type="", digest=digest_of(b""), size=0)
    name = Name.parse("r.test/ns/m")
    assert len(wanted_blobs(Manifest(layers=(one,) * 20_000), name)) == 20_000
    with pytest.raises(OllamadError, match="the manifest has 20001 layers; at most 20000"):
        wanted_blobs(Manifest(layers=(one,) * 20_000, config=one), name)


async def test_tensor_layers_are_refused_before_anything_is_fetched(
    mock_clock: Clock, world: World
) -> None:
    world.manifest(layer(WEIGHTS), layer(TEMPLATE, "application/vnd.ollama.image.tensor"))
    statuses, error = await failure(world)
    assert statuses == ["pulling manifest"]
    assert error == "this model requires MLX support, but the MLX runtime is not available"
    assert len(world.script.requests) == 1


async def test_other_unknown_layers_are_kept(mock_clock: Clock, world: World) -> None:
    world.blob(TEMPLATE)
    world.manifest(layer(TEMPLATE, "application/x-unknown"))
    assert (await world.pull())[-1] == Progress(status="success")


# --- blobs that cannot be had ---------------------------------------------------------------------


async def test_wrong_bytes(mock_clock: Clock, world: World) -> None:
    digest = digest_of(WEIGHTS)
    world.blob(bytes(250), digest=digest)
    world.blob(TEMPLATE)
    world.manifest(layer(TEMPLATE), layer(WEIGHTS), layer(CONFIG))
    statuses, error = await failure(world)
    assert statuses == [
        "pulling manifest",
        whole(TEMPLATE).status,
        "verifying sha256 digest",
    ]
    assert error == (
        "digest mismatch, file must be downloaded again: "
        f"want {digest}, got {digest_of(bytes(250))}"
    )
    assert world.files() == [digest_of(TEMPLATE).replace(":", "-")]
    assert not world.store.has_manifest(Name.parse("r.test/ns/m"))


async def test_wrong_bytes_for_a_digest_that_comes_twice(mock_clock: Clock, world: World) -> None:
    digest = "sha256:" + "a" * 64
    world.blob(WEIGHTS, digest=digest)
    world.script.on("GET", f"{BASE}/blobs/{digest}", Reply(200, {"Location": "/inside"}, WEIGHTS))
    world.script.on("GET", f"{REGISTRY}/inside", served(WEIGHTS))
    world.manifest({"digest": digest, "size": 250}, config={"digest": digest, "size": 250})
    _, error = await failure(world)
    assert error.startswith("digest mismatch, file must be downloaded again")
    assert world.files() == []


async def test_a_missing_blob(mock_clock: Clock, world: World) -> None:
    raw = serve(world, TEMPLATE, config=None)
    await world.pull()
    world.manifest(layer(TEMPLATE), layer(WEIGHTS))
    world.script.on("HEAD", f"{BASE}/blobs/{digest_of(WEIGHTS)}", Reply(404))
    statuses, error = await failure(world)
    assert error == "file does not exist"
    assert statuses == ["pulling manifest", whole(TEMPLATE).status]
    assert stored_manifest(world) == raw


async def test_no_room(mock_clock: Clock, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.blob(TEMPLATE)
    big = {"digest": digest_of(WEIGHTS), "size": 5_000_000_000}
    world.manifest(layer(TEMPLATE), big, big)
    monkeypatch.setattr(world.store, "free_bytes", lambda: 4_000_000_000)
    statuses, error = await failure(world)
    assert statuses == ["pulling manifest"]
    assert error == (
        "not enough disk space to pull model: need 5.0 GB (5000000013 bytes) "
        f"and 16 MB to spare, have 4 GB (4000000000 bytes) in {world.store.root}/blobs"
    )
    assert len(world.script.requests) == 1
    assert world.files() == []


async def test_room_is_needed_only_for_what_is_missing(
    mock_clock: Clock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(3_000_000)
    serve(world, data, config=None)
    partial = world.store.partial(digest_of(data))
    partial.path.parent.mkdir(parents=True)
    partial.path.write_bytes(data[:2_990_000])
    os.sync()
    part = Part(0, 0, len(data), 2_990_000)
    partial.path.with_name(partial.path.name + "-0").write_bytes(encode_part(part))
    monkeypatch.setattr(world.store, "free_bytes", lambda: 16_000_000 + 20_000)
    await world.pull()
    assert world.ranges() == [(0, "2990000-2999999")]


async def test_nothing_missing_needs_no_room(
    mock_clock: Clock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(world, WEIGHTS)
    await world.pull()
    monkeypatch.setattr(world.store, "free_bytes", lambda: 0)
    assert (await world.pull())[-1] == Progress(status="success")


async def test_a_manifest_that_cannot_be_written(
    mock_clock: Clock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(world, TEMPLATE, config=None)

    def full(self: Store, name: Name, raw: bytes) -> None:
        raise OSError(28, "No space left on device", "/there")

    monkeypatch.setattr(Store, "write_manifest", full)
    statuses, error = await failure(world)
    assert statuses[-1] == "writing manifest"
    assert error == os_error_text("open", OSError(28, "x", "/there"))


# --- what the model was before --------------------------------------------------------------------


async def test_layers_that_the_new_version_dropped_go(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, TEMPLATE)
    await world.pull()
    serve(world, WEIGHTS)
    events = await world.pull()
    assert events == said(
        "pulling manifest",
        WEIGHTS,
        CONFIG,
        "verifying sha256 digest",
        "writing manifest",
        "removing unused layers",
        "success",
    )
    assert not world.store.has_blob(digest_of(TEMPLATE))


async def test_layers_that_another_model_needs_stay(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, TEMPLATE)
    await world.pull()
    world.store.copy(Name.parse("r.test/ns/m"), Name.parse("other"))
    serve(world, WEIGHTS)
    events = await world.pull()
    assert Progress(status="removing unused layers") in events
    assert world.store.has_blob(digest_of(TEMPLATE))


async def test_noprune_keeps_everything(mock_clock: Clock, world: World) -> None:
    world.store.prune = False
    serve(world, WEIGHTS, TEMPLATE)
    await world.pull()
    serve(world, WEIGHTS)
    assert Progress(status="removing unused layers") not in await world.pull()
    assert world.store.has_blob(digest_of(TEMPLATE))


async def test_a_removal_that_fails_is_told(
    mock_clock: Clock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(world, WEIGHTS, TEMPLATE)
    await world.pull()
    serve(world, WEIGHTS)

    def fail(self: Store, digests: Any) -> list[str]:
        raise OSError(13, "Permission denied", "/manifests/x")

    monkeypatch.setattr(Store, "remove_unreferenced", fail)
    events = await world.pull()
    assert [event.status for event in events[-3:]] == [
        "removing unused layers",
        "couldn't remove unused layers: open /manifests/x: permission denied",
        "success",
    ]


async def test_a_damaged_manifest_is_replaced(mock_clock: Clock, world: World) -> None:
    raw = serve(world, TEMPLATE)
    path = world.store.manifest_path(Name.parse("r.test/ns/m"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{broken")
    assert await world.pull() == said("pulling manifest", TEMPLATE, CONFIG, *END)
    assert path.read_bytes() == raw


# --- several at once ------------------------------------------------------------------------------


def slow(data: bytes) -> Any:
    """In ten pieces, a second between them."""
    step = max(1, len(data) // 10)
    return served(
        data, lambda p: [x for i in range(0, len(p), step) for x in (Wait(1), p[i : i + step])]
    )


async def test_two_pulls_of_one_model(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, TEMPLATE)
    world.blob(WEIGHTS, slow(WEIGHTS))
    results: list[list[Any]] = []

    async def one(after: float) -> None:
        await trio.sleep(after)
        results.append(await world.pull())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, 0)
        nursery.start_soon(one, 3)
    assert results == [said("pulling manifest", WEIGHTS, TEMPLATE, CONFIG, *END)] * 2
    assert len(world.script.asked("HEAD")) == 3
    assert len(world.ranges()) == 3


async def test_models_of_two_registries_share_a_blob(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, config=None)
    world.blob(WEIGHTS, slow(WEIGHTS))
    other = json.dumps({"layers": [layer(WEIGHTS)]}).encode()
    world.script.on("GET", "https://s.test/v2/a/b/manifests/latest", Reply(body=other))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.pull)
        await trio.sleep(3)
        nursery.start_soon(world.pull, "s.test/a/b")
    assert [seen.path for seen in world.script.asked("", "s.test")] == ["/v2/a/b/manifests/latest"]
    assert stored_manifest(world, "s.test/a/b") == other


async def test_one_of_two_leaves(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, config=None)
    world.blob(WEIGHTS, slow(WEIGHTS))
    events: list[Any] = []

    async def stays() -> None:
        await trio.sleep(2)
        events.extend(await world.pull())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stays)
        with trio.move_on_after(5):
            await world.pull()
    assert events[-1] == Progress(status="success")
    assert world.ranges() == [(0, "0-249")]


async def test_all_leave_and_one_comes_back(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, config=None)
    world.blob(WEIGHTS, slow(WEIGHTS))
    with trio.move_on_after(4.5):
        await world.pull()
    assert world.script.open == 0
    assert not world.store.has_manifest(Name.parse("r.test/ns/m"))
    world.script.requests.clear()
    await world.pull()
    assert [range for _, range in world.ranges()] == ["100-249"]
    assert world.script.asked("HEAD") == []


async def test_an_error_is_everybodys(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, config=None)
    world.script.on("HEAD", f"{BASE}/blobs/{digest_of(WEIGHTS)}", Reply(500, after=5))
    errors: list[str] = []

    async def one() -> None:
        errors.append((await failure_of(world))[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
    assert errors == ["500: "] * 2
    assert len(world.script.asked("HEAD")) == 1


async def failure_of(world: World) -> tuple[list[str], str]:
    events: list[Progress] = []
    with pytest.raises(OllamadError) as caught:
        await world.pull(into=events)
    return [event.status for event in events], caught.value.message


async def test_a_create_of_that_name_waits_only_while_it_is_written(
    mock_clock: Clock, world: World
) -> None:
    serve(world, WEIGHTS, config=None)
    world.blob(WEIGHTS, slow(WEIGHTS))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.pull)
        await trio.sleep(2)
        with trio.fail_after(1):
            async with world.locks.hold(Name.parse("R.test/NS/M")):
                pass
        await trio.sleep(5)
        async with world.locks.hold(Name.parse("R.test/NS/M")):
            await trio.sleep(60)
            assert not world.store.has_manifest(Name.parse("r.test/ns/m"))
    assert world.store.has_manifest(Name.parse("r.test/ns/m"))


async def test_two_spellings_of_one_model(mock_clock: Clock, world: World) -> None:
    """Neither is stored when both begin; whoever comes last takes the first one's place."""
    serve(world, WEIGHTS, config=None)
    world.blob(WEIGHTS, slow(WEIGHTS))
    capital = world.manifest(layer(WEIGHTS), name="M")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.pull, "r.test/ns/m")
        await trio.sleep(3)
        async with world.locks.hold(Name.parse("r.test/ns/m")):
            await trio.sleep(12)
            # The first one waits for its name already, and this one behind it.
            nursery.start_soon(world.pull, "r.test/ns/M")
            await trio.sleep(5)
    names = [name.model for name, _ in world.store.manifests()]
    assert names == ["m"]
    assert stored_manifest(world) == capital


async def test_a_client_that_stops_reading_holds_no_name(mock_clock: Clock, world: World) -> None:
    serve(world, WEIGHTS, TEMPLATE)
    await world.pull()
    serve(world, WEIGHTS)
    async with aclosing(world.events()) as events:
        async for event in events:
            with trio.fail_after(1):
                async with world.locks.hold(Name.parse("r.test/ns/m")):
                    pass
            if event.status == "removing unused layers":
                break


async def test_what_a_pull_counts_on_cannot_be_deleted(mock_clock: Clock, world: World) -> None:
    """Another model with the same blob is deleted while this one is fetched."""
    serve(world, TEMPLATE, WEIGHTS, config=None)
    world.store.write_manifest(
        Name.parse("old"),
        Manifest(layers=(Layer(media_type="", digest=digest_of(TEMPLATE), size=13),)),
    )
    put(world, digest_of(TEMPLATE), TEMPLATE)
    world.blob(WEIGHTS, slow(WEIGHTS))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.pull)
        await trio.sleep(3)
        await trio.to_thread.run_sync(world.store.delete, Name.parse("old"))
    assert world.stored(digest_of(TEMPLATE)) == TEMPLATE
    assert len(world.script.asked("", digest_of(TEMPLATE))) == 0


async def test_a_long_pull_keeps_what_it_has_young(mock_clock: Clock, world: World) -> None:
    world.timing = Timing(touch=3)
    serve(world, TEMPLATE, WEIGHTS, config=None)
    path = put(world, digest_of(TEMPLATE), TEMPLATE)
    world.blob(WEIGHTS, slow(WEIGHTS))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.pull)
        await trio.sleep(2)
        os.utime(path, (1, 1))
        await trio.sleep(2.5)
        assert path.stat().st_mtime > 1


@pytest.mark.parametrize("steps", range(1, 60))
async def test_a_pull_can_be_stopped_anywhere(mock_clock: Clock, world: World, steps: int) -> None:
    """Whatever was going on, nothing is left but what the next pull needs."""
    raw = serve(world, WEIGHTS)
    world.blob(WEIGHTS, served(WEIGHTS, lambda p: [p[:90], Wait(0.5), p[90:]]))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                    await wait_all_tasks_blocked(0.0002)
                scope.cancel()

            nursery.start_soon(stop)
            await world.pull()
            nursery.cancel_scope.cancel()
    assert world.script.open == 0
    assert world.locks._entries == {}
    assert world.downloads._transfers == {}
    assert not [name for name in world.files() if name.startswith(".")]
    await world.pull()
    assert stored_manifest(world) == raw
    assert len(world.files()) == 2
