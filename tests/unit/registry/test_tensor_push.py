"""Pushes of models made of tensor layers (registry-and-store 4.7, 10.9)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

import pytest
import trio
from support.push_stage import (
    BASE,
    HOST,
    NAME,
    UPLOADS,
    PlainRegistry,
    Pushed,
    layer_of,
    make_model,
    push,
)
from support.scripted_http import Fail, Reply, Script, Seen
from trio.testing import MockClock

from ollamad.registry.push import UploadKey
from ollamad.registry.sharing import Shared
from ollamad.registry.tensor_plan import (
    TensorTiming,
    direct,
    opening_headers,
)
from ollamad.registry.upload import UploadTiming
from ollamad.store.manifest import MEDIA_TENSOR, Layer
from ollamad.store.store import Store

MIB = 1 << 20
MANIFEST = f"{BASE}/manifests/latest"
CHALLENGE = {"WWW-Authenticate": f'Bearer realm="https://{HOST}/token",service="s",scope="x"'}


def tensors(store: Store, *contents: bytes) -> list[Layer]:
    layers = [
        layer_of(store, content, MEDIA_TENSOR, name=f"t{at}") for at, content in enumerate(contents)
    ]
    make_model(store, layers, config=None)
    return layers


def failed(pushed: Pushed) -> str:
    assert pushed.error is not None
    return pushed.error.message


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "first", "count"),
    [
        (1024 * MIB, 100 * MIB, 11),
        (5 * 1024 * MIB, 320 * MIB, 16),
        (20 * 1024 * MIB, 1000 * MIB, 21),
        (100 * MIB, 100 * MIB, 1),
        (0, 0, 0),
    ],
)
def test_part_sizes_are_binary(total: int, first: int, count: int) -> None:
    parts = TensorTiming().parts(total)
    assert len(parts) == count
    assert sum(part.size for part in parts) == total
    if parts:
        assert parts[0].size == first


@pytest.mark.parametrize(
    ("failures", "chance", "opening", "other"),
    [
        (1, 0.5, 0.01, 0.01),
        (2, 0.0, 0.02, 0.02),
        (11, 1.0, 1.815, 1.815),
        (100, 0.5, 30, 100),
    ],
)
def test_waits(failures: int, chance: float, opening: float, other: float) -> None:
    timing = TensorTiming()
    assert timing.opening_wait(failures, chance) == pytest.approx(opening)
    assert timing.wait(failures, chance) == pytest.approx(other)


def test_opening_headers() -> None:
    assert opening_headers(7) == {"X-Redirect-Uploads": "2", "X-Content-Length": "7"}


@pytest.mark.parametrize("url", [None, "", "/relative", "ftp://h/x", "https:///x"])
def test_what_is_no_direct_url(url: str | None) -> None:
    assert direct({} if url is None else {"X-Direct-Upload-URL": url}) is None


def test_a_registry_does_not_frame_our_requests() -> None:
    headers = {
        "X-Direct-Upload-URL": "https://s/p",
        "X-Signed-Header-Host": "inside",
        "x-signed-header-content-length": "1",
        "X-Signed-Header-Transfer-Encoding": "chunked",
        "X-Signed-Header-X-Amz-A": "V",
    }
    found = direct(headers)
    assert found is not None
    assert found.headers == {"X-Amz-A": "V"}


# --- chunked mode ---------------------------------------------------------------------------------


async def test_one_of_three_is_there_and_a_token_is_wanted(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    one, two, three = layers = tensors(store, b"1" * 10, b"2" * 20, b"3" * 30)
    registry.blobs[one.digest] = b"1" * 10

    def head(seen: Seen) -> Reply:
        if "authorization" not in seen.headers:
            return Reply(401, CHALLENGE, after=1)
        return registry._head(seen)

    script.on("HEAD", f"{BASE}/blobs/*", head)
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}', after=1))
    pushed = await push(script, store)
    assert pushed.error is None
    methods = [seen.method for seen in script.requests]
    assert methods[:7] == ["HEAD"] * 3 + ["GET"] + ["HEAD"] * 3
    assert Counter(methods) == {"HEAD": 6, "GET": 1, "POST": 2, "PATCH": 2, "PUT": 3}
    assert len({seen.at for seen in script.requests[:3]}) == 1
    assert pushed.statuses == ["retrieving manifest", "pushing model", "success"]
    lines = pushed.of("sha256:model")
    assert lines[0] == (60, 10)
    assert lines[-1] == (60, 60)
    assert set(registry.blobs) == {layer.digest for layer in layers}
    for seen in script.requests:
        ours = seen.method != "GET"
        assert (seen.headers["user-agent"] == "ollama-transfer/1.0") == ours
    assert all(seen.headers["authorization"] == "Bearer T" for seen in script.requests[4:])
    for layer in (two, three):
        (post,) = script.asked("POST", layer.digest[7:])
        assert post.url == f"{UPLOADS}?digest={quote(layer.digest, '')}"
        assert post.headers["x-redirect-uploads"] == "2"
        assert post.headers["x-content-length"] == str(layer.size)
        assert post.body == b""
    patches = script.asked("PATCH")
    assert {seen.headers["content-range"] for seen in patches} == {"0-19", "0-29"}
    assert all(seen.headers["x-redirect-uploads"] == "1" for seen in patches)
    commits = script.asked("PUT", "/uploads/")
    assert all(seen.body == b"" for seen in commits)
    tags = {hashlib.md5(hashlib.md5(c).digest()).hexdigest() for c in (b"2" * 20, b"3" * 30)}
    for tag in tags:
        assert any(f"&etag={tag}-1&" in seen.url for seen in commits)


async def test_the_manifest_is_sent_as_it_is_stored(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    (layer,) = tensors(store, b"1")
    raw = (
        f'{{ "foo": 1, "layers": [{{"mediaType":"{MEDIA_TENSOR}","digest":"{layer.digest}",'
        '"size":1}] }\n'
    )
    store.write_manifest(NAME, raw.encode())
    assert (await push(script, store)).error is None
    assert registry.manifests == {"latest": raw.encode()}
    (put,) = script.asked("PUT", "/manifests/")
    assert put.headers["content-type"] == "application/vnd.docker.distribution.manifest.v2+json"


async def test_all_is_there(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    for layer in tensors(store, b"1", b"22"):
        registry.blobs[layer.digest] = b""
    pushed = await push(script, store)
    assert pushed.error is None
    assert [seen.method for seen in script.requests] == ["HEAD", "HEAD", "PUT"]
    assert pushed.of("sha256:model") == [(3, 3)]


async def test_several_parts(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    (layer,) = tensors(store, bytes(250))
    timing = UploadTiming(tensors=TensorTiming(least_part=100, most_part=100))
    assert (await push(script, store, timing=timing)).error is None
    assert registry.blobs == {layer.digest: bytes(250)}
    ranges = [seen.headers["content-range"] for seen in script.asked("PATCH")]
    assert ranges == ["0-99", "100-199", "200-249"]
    assert len(script.asked("PUT", "/uploads/")) == 1


async def test_an_empty_tensor(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    (layer,) = tensors(store, b"")
    assert (await push(script, store)).error is None
    assert registry.blobs == {layer.digest: b""}
    assert not script.asked("PATCH")


async def test_a_part_redirected_to_a_store(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    tensors(store, b"1" * 50)
    headers = {
        "Location": "https://store.test/p?s=%2f",
        "Docker-Upload-Location": f"{UPLOADS}U?n=2",
    }
    script.on("PATCH", f"{UPLOADS}*", Reply(307, headers))
    script.on("PUT", "https://store.test/*", Reply(500), Reply(200))
    script.on("PUT", f"{UPLOADS}U*", Reply(201))
    script.on("HEAD", f"{BASE}/blobs/*", Reply(401, CHALLENGE), Reply(404))
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    pushed = await push(script, store)
    assert pushed.error is None
    puts = script.asked("PUT", "store.test")
    assert [(seen.url, seen.body) for seen in puts] == [
        ("https://store.test/p?s=%2f", b"1" * 50)
    ] * 2
    assert all("authorization" not in seen.headers for seen in puts)
    assert all("content-range" not in seen.headers for seen in puts)
    assert len(script.asked("PATCH")) == 1
    assert "&n=2" in script.asked("PUT", "/uploads/")[0].url


@pytest.mark.parametrize("answer", [Reply(500), Reply(302, {"Location": "/x"}), Fail()])
async def test_a_question_without_answer_means_absent(
    clock: MockClock, script: Script, store: Store, answer: Reply | Fail
) -> None:
    registry = PlainRegistry(script)
    (layer,) = tensors(store, b"1")
    script.on("HEAD", f"{BASE}/blobs/*", answer)
    assert (await push(script, store)).error is None
    assert registry.blobs == {layer.digest: b"1"}


async def test_a_registry_that_always_wants_another_token(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1", b"2")
    script.on("HEAD", f"{BASE}/blobs/*", Reply(401, CHALLENGE))
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    pushed = await push(script, store)
    assert failed(pushed) == "unauthorized: access denied"
    assert len(script.requests) <= 5


# --- direct mode ----------------------------------------------------------------------------------


def directing(script: Script, **signed: str) -> None:
    headers = {
        "Location": f"{UPLOADS}U?x=1",
        "X-Direct-Upload-URL": "https://store.test/put?sig=%2f&b=1&a=2",
        **{f"X-Signed-Header-{name.replace('_', '-')}": value for name, value in signed.items()},
    }
    script.on("POST", f"{UPLOADS}*", Reply(202, headers))
    script.on("PUT", "https://store.test/*", Reply(200))
    script.on("PUT", f"{UPLOADS}U*", Reply(201))


async def test_a_whole_blob_at_once(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    (layer,) = tensors(store, b"1" * 50)
    directing(script, X_Amz_Checksum_Sha256="V", Content_Type="foo/bar")
    script.on("HEAD", f"{BASE}/blobs/*", Reply(401, CHALLENGE), Reply(404))
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    pushed = await push(script, store)
    assert pushed.error is None
    (put,) = script.asked("PUT", "store.test")
    assert put.url == "https://store.test/put?sig=%2f&b=1&a=2"
    assert put.body == b"1" * 50
    assert put.headers["content-length"] == "50"
    assert put.headers.get_list("content-type") == ["foo/bar"]
    assert put.headers["x-amz-checksum-sha256"] == "V"
    assert put.headers["user-agent"] == "ollama-transfer/1.0"
    assert "authorization" not in put.headers
    assert not script.asked("PATCH")
    (commit,) = script.asked("PUT", "/uploads/")
    assert commit.url == f"{UPLOADS}U?digest={quote(layer.digest, '')}&x=1"
    assert commit.body == b""
    assert pushed.of("sha256:model")[-1] == (50, 50)


async def test_not_even_a_store_on_its_own_host_gets_the_token(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    headers = {"Location": f"{UPLOADS}U", "X-Direct-Upload-URL": f"https://{HOST}/store"}
    script.on("POST", f"{UPLOADS}*", Reply(401, CHALLENGE), Reply(202, headers))
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    script.on("PUT", f"https://{HOST}/store", Reply(200))
    script.on("PUT", f"{UPLOADS}U*", Reply(201))
    assert (await push(script, store)).error is None
    (put,) = script.asked("PUT", "/store")
    assert "authorization" not in put.headers


async def test_octets_unless_said_otherwise(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    directing(script)
    assert (await push(script, store)).error is None
    (put,) = script.asked("PUT", "store.test")
    assert put.headers["content-type"] == "application/octet-stream"


async def test_a_direct_url_inside_is_refused(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    directing(script)
    script.addresses["store.test"] = "127.0.0.1"
    pushed = await push(script, store)
    assert failed(pushed).startswith('refused: registry "r.test" leads to the internal address')
    assert len(script.asked("POST")) == 1


async def test_a_direct_url_over_plain_http_is_refused(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    headers = {"Location": f"{UPLOADS}U", "X-Direct-Upload-URL": "http://store.test/put"}
    script.on("POST", f"{UPLOADS}*", Reply(202, headers))
    pushed = await push(script, store)
    assert failed(pushed).startswith('refused: registry "r.test" leads from https to plain http')
    assert not script.asked("PUT")


async def test_an_opening_that_says_it_is_there(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1" * 9)
    script.on("POST", f"{UPLOADS}*", Reply(201))
    pushed = await push(script, store)
    assert pushed.error is None
    assert [seen.method for seen in script.requests] == ["HEAD", "POST", "PUT"]
    assert pushed.of("sha256:model")[-1] == (9, 9)


async def test_a_relative_session(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.sessions["U9"] = bytearray()
    (layer,) = tensors(store, b"1")
    location = {"Docker-Upload-Location": "/v2/a/b/blobs/uploads/U9?_state=L0"}
    script.on("POST", f"{UPLOADS}*", Reply(202, location))
    assert (await push(script, store)).error is None
    assert registry.blobs == {layer.digest: b"1"}


# --- failures -------------------------------------------------------------------------------------


def counts(script: Script) -> Counter[str]:
    return Counter(seen.method for seen in script.requests if seen.method != "HEAD")


async def test_an_opening_always_refused(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    script.on("POST", f"{UPLOADS}*", Reply(500, body=b"no"))
    pushed = await push(script, store)
    assert failed(pushed) == "max retries exceeded: init upload: status 500"
    assert counts(script) == {"POST": 72}
    assert 10 < pushed.seconds < 50


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Reply(202), "init upload: no upload location"),
        (Fail(), f'init upload: Post "{UPLOADS}?digest=…": dial tcp: connect: connection refused'),
    ],
)
async def test_an_opening_that_leads_nowhere(
    clock: MockClock, script: Script, store: Store, answer: Reply | Fail, text: str
) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    script.on("POST", f"{UPLOADS}*", answer)
    pushed = await push(script, store)
    assert failed(pushed) == f"max retries exceeded: {text}"
    assert counts(script) == {"POST": 72}


async def test_an_opening_that_is_denied_is_not_repeated(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    script.on("POST", f"{UPLOADS}*", Reply(401, CHALLENGE))
    script.on("GET", f"https://{HOST}/token*", Reply(403, body=b"no"))
    assert failed(await push(script, store)) == "403: no"
    assert counts(script) == {"POST": 1, "GET": 1}


async def test_a_store_that_always_refuses_a_whole_blob(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    directing(script)
    script.on("PUT", "https://store.test/*", Reply(500, body=b"full"))
    pushed = await push(script, store)
    assert failed(pushed) == "max retries exceeded: direct upload: status 500: full"
    # Each attempt opens a session of its own, and none is committed.
    assert counts(script) == {"POST": 6, "PUT": 6}


async def test_a_part_always_refused(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    tensors(store, b"1")
    registry.faults = [Reply(500, body=b"boom")] * 99
    pushed = await push(script, store)
    assert failed(pushed) == ("max retries exceeded: part 0: patch part 0: status 500: boom")
    assert counts(script) == {"POST": 6, "PATCH": 18}
    assert pushed.seconds < 3


async def test_a_commit_always_refused(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    script.on("PUT", f"{UPLOADS}*", Reply(500, body=b"late"))
    pushed = await push(script, store)
    assert failed(pushed) == (
        "max retries exceeded: max retries exceeded: finalize: status 500: late"
    )
    assert counts(script) == {"POST": 6, "PATCH": 6, "PUT": 36}
    lines = [completed for _, completed in pushed.of("sha256:model")]
    assert lines[0] == 0


async def test_a_direct_commit_always_refused(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    directing(script)
    script.on("PUT", f"{UPLOADS}U*", Reply(500, body=b"late"))
    assert failed(await push(script, store)) == (
        "max retries exceeded: max retries exceeded: commit: status 500: late"
    )
    assert counts(script) == {"POST": 6, "PUT": 6 + 36}


async def test_a_part_without_the_next_url(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    (layer,) = tensors(store, b"1")
    registry.faults = [Reply(202)] * 3
    assert (await push(script, store)).error is None
    assert registry.blobs == {layer.digest: b"1"}
    assert counts(script) == {"POST": 2, "PATCH": 4, "PUT": 2}


async def test_what_is_lost_is_not_counted_twice(
    clock: MockClock, script: Script, store: Store
) -> None:
    """The last part fails until a new session is needed."""
    registry = PlainRegistry(script)
    tensors(store, bytes(250))
    boom = Reply(500, after=1)
    registry.faults = [None, None, boom, boom, boom]
    script.on("PUT", f"{UPLOADS}*", lambda seen: replace(registry._commit(seen), after=1))
    timing = UploadTiming(tensors=TensorTiming(least_part=100, most_part=100))
    pushed = await push(script, store, timing=timing)
    assert pushed.error is None
    completed = [completed for _, completed in pushed.of("sha256:model")]
    assert max(completed) == completed[-1] == 250


async def test_parts_refused_together_get_one_token(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    tensors(store, b"1", b"2", b"3")
    original: Callable[[Seen], Reply] = registry._patch

    def patch(seen: Seen) -> Reply:
        known = "authorization" in seen.headers
        return original(seen) if known else Reply(401, CHALLENGE, after=1)

    script.on("PATCH", f"{UPLOADS}*", patch)
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}', after=1))
    assert (await push(script, store)).error is None
    assert len(script.asked("GET")) == 1
    assert len(script.asked("PATCH")) == 6


async def test_a_refused_manifest(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    script.on("PUT", MANIFEST, Reply(403, body=b'{"e":1}'))
    pushed = await push(script, store)
    assert failed(pushed) == 'status 403: {"e":1}'
    assert len(script.asked("PUT", "/manifests/")) == 1
    assert "pushing manifest" not in pushed.statuses


async def test_a_manifest_that_needs_a_token(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    tensors(store, b"1")
    script.on("PUT", MANIFEST, Reply(401, CHALLENGE), Reply(200))
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    assert (await push(script, store)).error is None
    first, second = script.asked("PUT", "/manifests/")
    assert first.body == second.body != b""


async def test_a_missing_file(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    layers = tensors(store, b"1", b"2")
    path = store.blob_path(layers[1].digest)
    path.unlink()
    assert failed(await push(script, store)) == f"stat {path}: no such file or directory"
    assert counts(script) == {}


async def test_a_stalled_part(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    (layer,) = tensors(store, b"1")
    script.on("PATCH", f"{UPLOADS}*", Reply(202, after=10_000, early=True), registry._patch)
    pushed = await push(script, store)
    assert pushed.error is None
    assert registry.blobs == {layer.digest: b"1"}
    assert 60 < pushed.seconds < 61


@pytest.mark.parametrize("streams", [0, 1, 3])
async def test_bodies_at_once(clock: MockClock, script: Script, store: Store, streams: int) -> None:
    registry = PlainRegistry(script)
    tensors(store, *(b"%d" % number for number in range(10)))
    original: Callable[[Seen], Reply] = registry._patch

    def patch(seen: Seen) -> Reply:
        return replace(original(seen), after=1)

    script.on("PATCH", f"{UPLOADS}*", patch)
    pushed = await push(script, store, streams=streams)
    assert pushed.error is None
    rounds = -(-10 // max(1, streams))
    assert pushed.seconds == pytest.approx(rounds, abs=0.1)


async def test_two_pushes_share(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    tensors(store, b"1", b"2")
    original = registry._patch
    script.on("PATCH", f"{UPLOADS}*", lambda seen: replace(original(seen), after=5))
    results: list[Pushed] = []
    async with trio.open_nursery() as nursery:
        uploads: Shared[UploadKey] = Shared(nursery)

        async def one() -> None:
            results.append(await push(script, store, uploads=uploads))

        async with trio.open_nursery() as pushes:
            pushes.start_soon(one)
            pushes.start_soon(one)
    assert [pushed.error for pushed in results] == [None, None]
    assert counts(script) == {"POST": 2, "PATCH": 2, "PUT": 4}


async def test_who_leaves_ends_it(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    tensors(store, b"1", b"2")
    script.on("PATCH", f"{UPLOADS}*", Reply(202, after=1000))
    with trio.move_on_after(5) as scope:
        await push(script, store)
    assert scope.cancelled_caught
    assert script.open == 0
