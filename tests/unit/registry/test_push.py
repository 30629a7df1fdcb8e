"""Pushes as a client of the daemon sees them: events, requests, times, errors (10.9)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import trio
from support.push_stage import (
    BASE,
    HOST,
    NAME,
    SMALL,
    UPLOADS,
    PlainRegistry,
    Pushed,
    layer_of,
    make_model,
    push,
    put_blob,
)
from support.scripted_http import STALL, Fail, Reply, Script, Seen
from trio.testing import MockClock

from ollamad.registry.push import UploadKey
from ollamad.registry.sharing import Shared
from ollamad.registry.upload import UploadTiming
from ollamad.store.names import Name
from ollamad.store.store import Store

CONTENT = bytes(range(250))
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
BLOB = f"{BASE}/blobs/{DIGEST}"
MANIFEST = f"{BASE}/manifests/latest"


def one_layer(store: Store, content: bytes = CONTENT, **more: Any) -> None:
    make_model(store, [layer_of(store, content, **more)], config=None)


def redirecting(script: Script, store_answer: Callable[[Seen], Reply | Fail]) -> None:
    """A registry that keeps nothing itself: each PATCH is sent on to a store of its own URL."""
    script.on("HEAD", f"{BASE}/blobs/*", Reply(404))
    script.on("POST", UPLOADS, Reply(202, {"Docker-Upload-Location": f"{UPLOADS}U?n=1"}))

    def patch(seen: Seen) -> Reply:
        number = int(seen.url.rsplit("=", 1)[1])
        return Reply(
            307,
            {
                "Location": f"https://store.test/part{number}?sig=A%2fb&q=1",
                "Docker-Upload-Location": f"/v2/a/b/blobs/uploads/U?n={number + 1}",
            },
        )

    script.on("PATCH", f"{UPLOADS}*", patch)
    script.on("PUT", "https://store.test/*", store_answer)
    script.on("PUT", f"{UPLOADS}*", Reply(201))
    script.on("PUT", MANIFEST, Reply(201))


def times(seen: list[Seen]) -> list[float]:
    start = seen[0].at
    return [round(each.at - start, 3) for each in seen]


def failed(pushed: Pushed) -> str:
    assert pushed.error is not None
    assert pushed.error.status == 500
    return pushed.error.message


# --- a plain registry -----------------------------------------------------------------------------


async def test_a_whole_push(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    layers = [layer_of(store, CONTENT, "m"), layer_of(store, b"template", "t")]
    manifest = make_model(store, layers, config=b"{}\n")
    pushed = await push(script, store)
    digests = [*(layer.digest for layer in layers), manifest.config.digest]
    assert pushed.error is None
    assert pushed.statuses == [
        "retrieving manifest",
        *(f"pushing {digest[7:19]}" for digest in digests),
        "pushing manifest",
        "success",
    ]
    assert [pushed.of(digest)[-1] for digest in digests] == [(250, 250), (8, 8), (3, 3)]
    assert list(registry.blobs) == digests
    raw = store.read_manifest(NAME).raw
    assert registry.manifests == {"latest": raw.removesuffix(b"\n")}
    (put,) = script.asked("PUT", "/manifests/")
    assert put.headers["content-type"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert all(seen.headers["user-agent"].startswith("ollama/") for seen in script.requests)

    again = await push(script, store)
    assert again.statuses == pushed.statuses
    assert [seen.method for seen in script.requests[-4:]] == ["HEAD", "HEAD", "HEAD", "PUT"]
    assert len(again.events) == 6


async def test_what_is_sent_for_one_blob(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    one_layer(store)
    assert (await push(script, store)).error is None
    session = f"{UPLOADS}U0?_state=L"
    patches = script.asked("PATCH")
    assert [(seen.method, seen.url) for seen in script.requests[:5]] == [
        ("HEAD", BLOB),
        ("POST", UPLOADS),
        ("PATCH", f"{session}0&zz=1"),
        ("PATCH", f"{session}100&zz=1"),
        ("PATCH", f"{session}200&zz=1"),
    ]
    etag = hashlib.md5(
        b"".join(
            hashlib.md5(CONTENT[at : at + 100], usedforsecurity=False).digest()
            for at in (0, 100, 200)
        ),
        usedforsecurity=False,
    ).hexdigest()
    commit = script.requests[5]
    assert (commit.method, commit.url) == (
        "PUT",
        f"{session}250&digest={quote(DIGEST, '')}&etag={etag}-3&zz=1",
    )
    assert (commit.body, commit.headers["content-type"]) == (b"", "application/octet-stream")
    assert [seen.headers["content-range"] for seen in patches] == ["0-99", "100-199", "200-249"]
    assert [seen.headers["content-length"] for seen in patches] == ["100", "100", "50"]
    assert [seen.body for seen in patches] == [CONTENT[:100], CONTENT[100:200], CONTENT[200:]]
    for seen in patches:
        assert seen.headers["content-type"] == "application/octet-stream"
        assert seen.headers["x-redirect-uploads"] == "1"
        assert "authorization" not in seen.headers
    post = script.requests[1]
    assert post.body == b""
    assert "content-type" not in post.headers


@pytest.mark.parametrize(
    ("total", "size", "sizes"),
    [
        (10240, 2048, [2048] * 5),
        (10001, 3000, [3000, 3000, 3000, 1001]),
        (2_000_001, 1_500_000, [1_500_000, 500_001]),
    ],
)
async def test_parts(
    clock: MockClock, script: Script, store: Store, total: int, size: int, sizes: list[int]
) -> None:
    PlainRegistry(script)
    content = random.Random(total).randbytes(total)
    one_layer(store, content)
    timing = UploadTiming(least_part=size, most_part=size)
    assert (await push(script, store, timing=timing)).error is None
    patches = script.asked("PATCH")
    assert [len(seen.body) for seen in patches] == sizes
    assert b"".join(seen.body for seen in patches) == content


async def test_an_empty_blob(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    one_layer(store, b"")
    pushed = await push(script, store)
    assert pushed.error is None
    assert not script.asked("PATCH")
    assert script.asked("PUT")[0].url.endswith("&etag=d41d8cd98f00b204e9800998ecf8427e-0&zz=1")
    assert pushed.events[1].status.startswith("pushing ")
    assert (pushed.events[1].total, pushed.events[1].completed) == (0, 0)


async def test_the_first_part_refused_once(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(500)]
    one_layer(store)
    pushed = await push(script, store)
    assert pushed.error is None
    assert registry.blobs == {DIGEST: CONTENT}
    assert pushed.seconds == pytest.approx(1, abs=0.1)


async def test_a_failed_part_of_a_plain_registry_is_a_new_session(
    clock: MockClock, script: Script, store: Store
) -> None:
    """What the registry keeps of a broken PATCH makes its session useless (7.3.2)."""
    registry = PlainRegistry(script)

    def broken(seen: Seen) -> Fail:
        registry.sessions["U0"] += seen.body[:40]
        return Fail("write: connection reset by peer", connected=True)

    registry.faults = [None, broken]
    one_layer(store)
    pushed = await push(script, store)
    assert pushed.error is None
    assert registry.blobs == {DIGEST: CONTENT}
    assert len(script.asked("POST")) == 2
    assert [seen.headers["content-range"] for seen in script.asked("PATCH")] == [
        "0-99",
        "100-199",
        "0-99",
        "100-199",
        "200-249",
    ]
    counts = [completed for _, completed in pushed.of(DIGEST)]
    assert 0 in counts[1:]
    assert counts[-1] == 250


async def test_a_part_of_which_nothing_was_sent_stays_in_its_session(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    one_layer(store)
    registry.faults = [None, None]

    def once(seen: Seen) -> Reply | Fail:
        answer: Reply | Fail = registry._patch(seen)
        if len(script.asked("PATCH")) == 1:
            script.on("PATCH", f"{UPLOADS}*", Fail(), registry._patch)
        return answer

    script.on("PATCH", f"{UPLOADS}*", once)
    pushed = await push(script, store)
    assert pushed.error is None
    assert len(script.asked("POST")) == 1
    assert [seen.headers["content-range"] for seen in script.asked("PATCH")] == [
        "0-99",
        "100-199",
        "100-199",
        "200-249",
    ]


async def test_a_connection_lost_twice(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    lost = Fail("EOF", connected=True)
    registry.faults = [lost, lost]
    one_layer(store, b"x" * 50)
    pushed = await push(script, store)
    assert pushed.error is None
    patches = script.asked("PATCH")
    assert times(patches) == [0, 1, 3]
    assert [seen.body for seen in patches] == [b"x" * 50] * 3


async def test_a_part_always_refused(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(500, body=b"boom")] * 100
    one_layer(store, b"x" * 50)
    pushed = await push(script, store)
    text = "max retries exceeded: http status 500 Internal Server Error: boom"
    assert failed(pushed) == text
    assert times(script.asked("PATCH")) == [0, 1, 3, 7, 15, 31]
    assert pushed.seconds == pytest.approx(63, abs=0.1)
    assert not script.asked("PUT")


async def test_no_connection_for_any_part(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    script.on("PATCH", f"{UPLOADS}*", Fail())
    one_layer(store, b"x" * 50)
    pushed = await push(script, store)
    assert failed(pushed).startswith('max retries exceeded: Patch "https://r.test/')
    assert failed(pushed).endswith(": dial tcp: connect: connection refused")
    assert "L0" not in failed(pushed)
    assert times(script.asked("PATCH")) == [0, 1, 3, 7, 15, 31]


@pytest.mark.parametrize(("asked", "waits"), [("9", 9), ("3600", 60), ("0", 1), ("soon", 1)])
async def test_a_busy_registry(
    clock: MockClock, script: Script, store: Store, asked: str, waits: float
) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(429, {"Retry-After": asked})]
    one_layer(store, b"x" * 50)
    assert (await push(script, store)).error is None
    patches = script.asked("PATCH")
    assert times(patches) == [0, waits]
    assert patches[0].url == patches[1].url


@pytest.mark.parametrize(
    "reply",
    [
        Reply(301, {"Location": "https://elsewhere.test/"}),
        Reply(302, {"Location": "https://elsewhere.test/"}),
        Reply(303, {"Location": "https://elsewhere.test/"}),
        Reply(308, {"Location": "https://elsewhere.test/"}),
        Reply(307),
    ],
)
async def test_other_redirects_of_a_part(
    clock: MockClock, script: Script, store: Store, reply: Reply
) -> None:
    """Each is a failed attempt, and nobody follows it."""
    registry = PlainRegistry(script)
    registry.faults = [reply]
    one_layer(store)
    pushed = await push(script, store)
    assert pushed.error is None
    assert registry.blobs == {DIGEST: CONTENT}
    assert not script.asked("", "elsewhere.test")


async def test_a_stalled_part(clock: MockClock, script: Script, store: Store) -> None:
    """Bytes that nobody takes for a minute are a failed attempt."""
    PlainRegistry(script)
    own = script._answers["PATCH", f"{UPLOADS}*"]
    # It never reads the body, and never answers.
    script._answers["PATCH", f"{UPLOADS}*"] = [Reply(202, after=10_000, early=True), *own]
    one_layer(store)
    pushed = await push(script, store)
    assert pushed.error is None
    assert times(script.asked("PATCH"))[:2] == [0, 61]


async def test_an_answer_is_waited_for_longer_than_a_body(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)

    def late(seen: Seen) -> Reply:
        answer: Reply = PlainRegistry._patch(registry, seen)
        return Reply(answer.status, answer.headers, after=500)

    registry.faults = [late]
    one_layer(store, b"x" * 50)
    # The fault itself is not asked for a second time by what it calls.
    pushed = await push(script, store)
    assert pushed.error is None
    assert len(script.asked("PATCH")) == 1


async def test_an_answer_that_never_comes(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(202, after=10_000)]
    one_layer(store, b"x" * 50)
    assert (await push(script, store)).error is None
    assert times(script.asked("PATCH")) == [0, 601]


async def test_an_early_success_is_none(clock: MockClock, script: Script, store: Store) -> None:
    """202 before the body was read cannot mean that it is stored."""
    registry = PlainRegistry(script)
    own = script._answers["PATCH", f"{UPLOADS}*"]
    early = Reply(202, {"Location": f"{UPLOADS}U0?_state=L250&zz=1"}, early=True)
    script._answers["PATCH", f"{UPLOADS}*"] = [early, *own]
    one_layer(store)
    assert (await push(script, store)).error is None
    assert registry.blobs == {DIGEST: CONTENT}


# --- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Reply(404), "file does not exist"),
        (Reply(500, body=b"page"), "500: page"),
        (Reply(202), "http: no Location header in response"),
        (Fail(), f'Post "{UPLOADS}": dial tcp: connect: connection refused'),
        (
            Reply(202, {"Location": "http://r.test/U"}),
            'refused: registry "r.test" leads from https to plain http at "r.test"'
            " (only with --insecure)",
        ),
    ],
)
async def test_no_session(
    clock: MockClock, script: Script, store: Store, answer: Reply, text: str
) -> None:
    PlainRegistry(script)
    script.on("POST", UPLOADS, answer)
    one_layer(store)
    pushed = await push(script, store)
    assert failed(pushed) == text
    assert len(script.asked("POST")) == 1
    assert pushed.seconds < 1


@pytest.mark.parametrize("location", ["/v2/a/b/blobs/uploads/U0?_state=L0", "U0?_state=L0"])
async def test_a_relative_session(
    clock: MockClock, script: Script, store: Store, location: str
) -> None:
    registry = PlainRegistry(script)
    registry.sessions["U0"] = bytearray()
    script.on("POST", UPLOADS, Reply(202, {"Location": location}))
    one_layer(store)
    assert (await push(script, store)).error is None
    assert script.asked("PATCH")[0].url == f"{UPLOADS}U0?_state=L0"


async def test_a_redirected_opening(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    again = f"{UPLOADS}?again=1"
    script.on("POST", UPLOADS, Reply(307, {"Location": again}))
    one_layer(store)
    assert (await push(script, store)).error is None
    assert [seen.url for seen in script.asked("POST")] == [UPLOADS, again]


async def test_another_header_for_the_session(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    registry.sessions["U7"] = bytearray()
    headers = {"Location": f"{UPLOADS}no", "Docker-Upload-Location": f"{UPLOADS}U7?_state=L0"}
    script.on("POST", UPLOADS, Reply(202, headers))
    one_layer(store)
    assert (await push(script, store)).error is None
    assert script.asked("PATCH")[0].url == f"{UPLOADS}U7?_state=L0"


async def test_a_mounted_blob(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    url = f"{UPLOADS}?from=library%2Fbase&mount={quote(DIGEST, '')}"
    script.on("POST", url, Reply(201))
    one_layer(store, from_="library/base:q4")
    pushed = await push(script, store)
    assert pushed.error is None
    assert [seen.url for seen in script.asked("POST")] == [url]
    assert not script.asked("PATCH")
    assert pushed.of(DIGEST) == [(250, 250)]


async def test_mounting_here_says_nothing_about_elsewhere(
    clock: MockClock, script: Script, store: Store
) -> None:
    """A push after a mount uploads to the next repository (pitfall 26)."""
    PlainRegistry(script)
    script.on("POST", f"{UPLOADS}*", Reply(201))
    one_layer(store, from_="library/base:q4")
    other = Name.parse(f"{HOST}/a/c")
    make_model(store, [layer_of(store, CONTENT)], config=None, name=other)
    registry = PlainRegistry(script, BASE[:-1] + "c")
    async with trio.open_nursery() as nursery:
        uploads: Shared[UploadKey] = Shared(nursery)
        script.on("POST", f"{UPLOADS}*", Reply(201))
        assert (await push(script, store, uploads=uploads)).error is None
        assert (await push(script, store, name=other, uploads=uploads)).error is None
    assert registry.blobs == {DIGEST: CONTENT}


async def test_a_layer_whose_origin_is_a_path_is_not_mounted(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    one_layer(store, from_="/home/u/a b/t.gguf")
    assert (await push(script, store)).error is None
    assert [seen.url for seen in script.asked("POST")] == [UPLOADS]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Reply(405), "405: "),
        (Reply(500), "500: "),
        (Fail(), f'Head "{BLOB}": dial tcp: connect: connection refused'),
    ],
)
async def test_a_failed_question(
    clock: MockClock, script: Script, store: Store, answer: Reply | Fail, text: str
) -> None:
    PlainRegistry(script)
    script.on("HEAD", f"{BASE}/blobs/*", answer)
    one_layer(store)
    assert failed(await push(script, store)) == text


async def test_a_redirected_question(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    script.on("HEAD", f"{BASE}/blobs/*", Reply(307, {"Location": "https://store.test/b"}))
    script.on("HEAD", "https://store.test/b", Reply(200))
    one_layer(store)
    pushed = await push(script, store)
    assert pushed.error is None
    assert not script.asked("POST")
    assert pushed.of(DIGEST) == [(250, 250)]


# --- redirects to a store -------------------------------------------------------------------------


async def test_parts_in_a_store(clock: MockClock, script: Script, store: Store) -> None:
    """The next PATCH does not wait for the store; the PUTs overlap; then the commit."""
    redirecting(script, lambda seen: Reply(200, after=5))
    one_layer(store)
    pushed = await push(script, store)
    assert pushed.error is None
    puts = script.asked("PUT", "store.test")
    assert times(puts) == [0, 0, 0]
    assert [seen.url for seen in puts] == [
        f"https://store.test/part{number}?sig=A%2fb&q=1" for number in (1, 2, 3)
    ]
    assert [seen.body for seen in puts] == [CONTENT[:100], CONTENT[100:200], CONTENT[200:]]
    for seen in puts:
        assert seen.headers["content-type"] == "application/octet-stream"
        assert seen.headers["user-agent"].startswith("ollama/")
        for name in ("authorization", "content-range", "x-redirect-uploads"):
            assert name not in seen.headers
    (commit,) = script.asked("PUT", "/uploads/")
    assert commit.at - puts[0].at == pytest.approx(5, abs=0.1)
    assert "&n=4" in commit.url
    counts = [completed for _, completed in pushed.of(DIGEST)]
    assert counts[-1] == 250


async def test_the_token_stays_with_the_registry(
    clock: MockClock, script: Script, store: Store
) -> None:
    redirecting(script, lambda seen: Reply(200))
    challenge = {"WWW-Authenticate": f'Bearer realm="https://{HOST}/token",service="s",scope="x"'}
    script.on("HEAD", f"{BASE}/blobs/*", Reply(401, challenge), Reply(404))
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    one_layer(store)
    assert (await push(script, store)).error is None
    assert len(script.asked("GET")) == 1
    for seen in script.requests:
        ours = seen.url.startswith(BASE) and seen is not script.requests[0]
        if seen.method != "GET":
            assert seen.headers.get("authorization") == ("Bearer T" if ours else None)


async def test_not_even_a_store_on_its_own_host_gets_the_token(
    clock: MockClock, script: Script, store: Store
) -> None:
    """The credential of such a URL is its query; two are refused by some stores."""
    redirecting(script, lambda seen: Reply(200))
    headers = {"Location": "/store/p?sig=1", "Docker-Upload-Location": f"{UPLOADS}U?n=2"}
    script.on("PATCH", f"{UPLOADS}*", Reply(401, challenge("x")), Reply(307, headers))
    script.on("PUT", f"https://{HOST}/store/*", Reply(200))
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    one_layer(store, b"x" * 50)
    assert (await push(script, store)).error is None
    (put,) = script.asked("PUT", "/store/")
    assert "authorization" not in put.headers
    assert script.asked("PUT", "/uploads/")[0].headers["authorization"] == "Bearer T"


async def test_a_store_that_is_busy_once(clock: MockClock, script: Script, store: Store) -> None:
    answers = [Reply(503), Reply(200)]
    redirecting(script, lambda seen: answers.pop(0))
    one_layer(store, b"x" * 50)
    assert (await push(script, store)).error is None
    puts = script.asked("PUT", "store.test")
    assert times(puts) == [0, 1]
    assert {seen.url for seen in puts} == {"https://store.test/part1?sig=A%2fb&q=1"}
    assert len(script.asked("PATCH")) == 1
    assert len(script.asked("POST")) == 1


async def test_a_store_that_always_refuses(clock: MockClock, script: Script, store: Store) -> None:
    redirecting(script, lambda seen: Reply(500, body=b"no"))
    one_layer(store, b"x" * 50)
    pushed = await push(script, store)
    text = "max retries exceeded: http status 500 Internal Server Error: no"
    assert failed(pushed) == text
    assert times(script.asked("PUT")) == [0, 1, 3, 7, 15, 31]
    assert pushed.seconds == pytest.approx(63, abs=0.1)
    assert len(script.asked("PATCH")) == 1


@pytest.mark.parametrize("status", [307, 308])
async def test_a_store_in_another_region(
    clock: MockClock, script: Script, store: Store, status: int
) -> None:
    redirecting(script, lambda seen: Reply(status, {"Location": "https://region.test/p?s=%2f"}))
    script.on("PUT", "https://region.test/*", Reply(200))
    one_layer(store, b"x" * 50)
    assert (await push(script, store)).error is None
    (put,) = script.asked("PUT", "region.test")
    assert (put.url, put.body) == ("https://region.test/p?s=%2f", b"x" * 50)


async def test_a_store_that_never_stops_redirecting(
    clock: MockClock, script: Script, store: Store
) -> None:
    redirecting(script, lambda seen: Reply(307, {"Location": seen.url}))
    one_layer(store, b"x" * 50)
    pushed = await push(script, store, timing=UploadTiming(least_part=100, attempts=2))
    assert failed(pushed) == "max retries exceeded: stopped after 10 redirects"
    assert len(script.asked("PUT")) == 22


async def test_a_store_inside_is_refused(clock: MockClock, script: Script, store: Store) -> None:
    """A public registry does not make this machine send things to its own network."""
    script.addresses["store.test"] = "10.0.0.7"
    redirecting(script, lambda seen: Reply(200))
    one_layer(store, b"x" * 50)
    pushed = await push(script, store)
    assert failed(pushed) == (
        'refused: registry "r.test" leads to the internal address 10.0.0.7 of "store.test"'
        " (only with --insecure)"
    )
    assert pushed.seconds < 1
    assert not script.asked("PUT")


async def test_a_store_over_plain_http_is_refused(
    clock: MockClock, script: Script, store: Store
) -> None:
    redirecting(script, lambda seen: Reply(200))
    script.on("PATCH", f"{UPLOADS}*", Reply(307, {"Location": "http://store.test/p"}))
    one_layer(store, b"x" * 50)
    pushed = await push(script, store)
    assert failed(pushed).startswith('refused: registry "r.test" leads from https to plain http')
    assert not script.asked("PUT")


async def test_redirected_early(clock: MockClock, script: Script, store: Store) -> None:
    """A registry that redirects before it has read the body."""
    redirecting(script, lambda seen: Reply(200))
    headers = {"Location": "https://store.test/p", "Docker-Upload-Location": f"{UPLOADS}U?n=2"}
    script.on("PATCH", f"{UPLOADS}*", Reply(307, headers, early=True))
    one_layer(store, b"x" * 50)
    assert (await push(script, store)).error is None
    (put,) = script.asked("PUT", "store.test")
    assert put.body == b"x" * 50


async def test_a_failed_part_of_a_redirecting_registry_stays_in_its_session(
    clock: MockClock, script: Script, store: Store
) -> None:
    redirecting(script, lambda seen: Reply(200))
    own = script._answers["PATCH", f"{UPLOADS}*"][0]
    script.on("PATCH", f"{UPLOADS}*", own, Fail("EOF", connected=True), own)
    one_layer(store)
    assert (await push(script, store)).error is None
    assert len(script.asked("POST")) == 1
    urls = [seen.url for seen in script.asked("PATCH")]
    assert urls == [f"{UPLOADS}U?n={number}" for number in (1, 2, 2, 3)]


# --- tokens ---------------------------------------------------------------------------------------


def challenge(scope: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer realm="https://{HOST}/token",service="s",scope="{scope}"'}


async def test_one_token_for_all(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    wanted = Reply(401, challenge("repository:a/b:pull,push"))
    script.on("HEAD", f"{BASE}/blobs/*", wanted, registry._head)
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    one_layer(store)
    assert (await push(script, store)).error is None
    assert [seen.method for seen in script.requests] == [
        "HEAD",
        "GET",
        "HEAD",
        "POST",
        "PATCH",
        "PATCH",
        "PATCH",
        "PUT",
        "PUT",
    ]
    assert [seen.headers["authorization"] for seen in script.requests[2:]] == ["Bearer T"] * 7


async def test_a_part_that_needs_a_token(clock: MockClock, script: Script, store: Store) -> None:
    """Fetched at once; the part goes out again after its delay, in the same session."""
    registry = PlainRegistry(script)
    registry.faults = [None, Reply(401, challenge("x"))]
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    one_layer(store)
    assert (await push(script, store)).error is None
    patches = script.asked("PATCH")
    assert times(patches) == [0, 0, 1, 1]
    assert patches[1].url == patches[2].url
    assert patches[2].headers["authorization"] == "Bearer T"
    assert "authorization" not in patches[1].headers
    assert script.asked("GET")[0].at == patches[1].at


async def test_a_token_that_does_not_come_at_once(
    clock: MockClock, script: Script, store: Store
) -> None:
    """Whatever becomes of the token: a part answered with 401 was not kept."""
    registry = PlainRegistry(script)
    registry.faults = [None, Reply(401, challenge("x")), Reply(401, challenge("x"))]
    script.on("GET", f"https://{HOST}/token*", Fail(), Reply(body=b'{"token":"T"}'))
    one_layer(store)
    assert (await push(script, store)).error is None
    assert len(script.asked("POST")) == 1
    assert times(script.asked("PATCH")) == [0, 0, 1, 3, 3]


async def test_a_token_denied_for_a_part(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(401, challenge("x"))] * 9
    script.on("GET", f"https://{HOST}/token*", Reply(403, body=b"no"))
    one_layer(store)
    pushed = await push(script, store)
    assert failed(pushed) == "403: no"
    assert len(script.asked("PATCH")) == 1


async def test_a_part_always_unauthorised(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(401, challenge("x"), b"who?")] * 9
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    one_layer(store)
    pushed = await push(script, store)
    assert failed(pushed) == "max retries exceeded: http status 401 Unauthorized: who?"
    assert times(script.asked("PATCH")) == [0, 1, 3, 7, 15, 31]


async def test_a_manifest_that_needs_a_token(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    scope = "repository:a/b:pull,push repository:c/d:pull"
    script.on("PUT", MANIFEST, Reply(401, challenge(scope)), Reply(201))
    script.on("GET", f"https://{HOST}/token*", Reply(body=b'{"token":"T"}'))
    one_layer(store)
    assert (await push(script, store)).error is None
    (token,) = script.asked("GET")
    assert token.url == (
        f"https://{HOST}/token?nonce={'A' * 22}&scope=repository%3Aa%2Fb%3Apull%2Cpush"
        "&scope=repository%3Ac%2Fd%3Apull&service=s&ts=1700000000"
    )
    first, second = script.asked("PUT", "/manifests/")
    assert first.body == second.body != b""
    assert second.headers["authorization"] == "Bearer T"


# --- commit and manifest --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "text"),
    [(Reply(404), "file does not exist"), (Reply(500, body=b"late"), "500: late")],
)
async def test_a_commit_always_refused(
    clock: MockClock, script: Script, store: Store, reply: Reply, text: str
) -> None:
    PlainRegistry(script)
    script.on("PUT", f"{UPLOADS}*", reply)
    one_layer(store)
    pushed = await push(script, store)
    assert failed(pushed) == text
    assert times(script.asked("PUT")) == [0, 1, 3, 7, 15, 31]
    assert pushed.seconds == pytest.approx(63, abs=0.1)
    assert not script.asked("PUT", "/manifests/")


async def test_a_busy_registry_at_the_commit(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    script.on("PUT", f"{UPLOADS}*", Reply(429, {"Retry-After": "9"}), registry._commit)
    one_layer(store)
    assert (await push(script, store)).error is None
    assert times(script.asked("PUT", "/uploads/")) == [0, 9]


async def test_a_commit_whose_answer_is_lost(
    clock: MockClock, script: Script, store: Store
) -> None:
    """The registry has done it, and its session is gone: the blob tells."""
    registry = PlainRegistry(script)
    own = registry._commit

    def lost(seen: Seen) -> Fail:
        own(seen)
        return Fail("EOF", connected=True)

    script.on("PUT", f"{UPLOADS}*", lost, Reply(404))
    one_layer(store)
    pushed = await push(script, store)
    assert pushed.error is None
    assert len(script.asked("PUT", "/uploads/")) == 1
    assert pushed.seconds == pytest.approx(1, abs=0.1)


async def test_a_commit_that_leads_inside_is_refused_at_once(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    script.addresses["store.test"] = "10.0.0.7"
    script.on("PUT", f"{UPLOADS}*", Reply(307, {"Location": "https://store.test/c"}))
    one_layer(store)
    pushed = await push(script, store)
    assert failed(pushed).startswith('refused: registry "r.test" leads to the internal address')
    assert len(script.asked("PUT")) == 1
    assert pushed.seconds < 1


async def test_a_lost_commit_of_which_nothing_can_be_learnt_is_repeated(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    script.on("PUT", f"{UPLOADS}*", Fail("EOF", connected=True), registry._commit)
    script.on("HEAD", f"{BASE}/blobs/*", Reply(404), Reply(500))
    one_layer(store)
    assert (await push(script, store)).error is None
    assert len(script.asked("PUT", "/uploads/")) == 2


async def test_a_commit_that_did_not_arrive(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    script.on("PUT", f"{UPLOADS}*", Fail("EOF", connected=True), registry._commit)
    one_layer(store)
    assert (await push(script, store)).error is None
    assert registry.blobs == {DIGEST: CONTENT}


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirected_manifest(
    clock: MockClock, script: Script, store: Store, status: int
) -> None:
    PlainRegistry(script)
    script.on("PUT", MANIFEST, Reply(status, {"Location": "/m2"}))
    script.on("PUT", f"https://{HOST}/m2", Reply(201))
    one_layer(store)
    assert (await push(script, store)).error is None
    first, second = script.asked("PUT", "/m")[-2:]
    assert second.url == f"https://{HOST}/m2"
    assert first.body == second.body != b""


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(302, {"Location": "/m2"}), "302: unexpected redirect of a PUT request"),
        (Reply(400, body=b'{"errors":[]}'), '400: {"errors":[]}'),
        (Reply(404), "file does not exist"),
    ],
)
async def test_a_refused_manifest(
    clock: MockClock, script: Script, store: Store, reply: Reply, text: str
) -> None:
    PlainRegistry(script)
    script.on("PUT", MANIFEST, reply)
    one_layer(store)
    pushed = await push(script, store)
    assert failed(pushed) == text
    assert pushed.statuses[-1] == "pushing manifest"


async def test_a_foreign_manifest(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    content = bytes(1000)
    digest = put_blob(store, content)
    raw = (
        f'{{"layers":[{{"size":1000,"digest":"{digest}","mediaType":"x/y","annotations":{{}}}}],'
        '"schemaVersion":7,"foo":1,"config":{"digest":""}}'
    )
    store.write_manifest(NAME, raw.encode())
    assert (await push(script, store)).error is None
    assert registry.manifests["latest"].decode() == (
        '{"schemaVersion":7,"mediaType":"","config":{"mediaType":"","digest":"","size":0},'
        f'"layers":[{{"mediaType":"x/y","digest":"{digest}","size":1000}}]}}'
    )


async def test_sizes_of_the_file_and_of_the_manifest(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    content = bytes(1000)
    one_layer(store, content, size=9)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    first = await push(script, store)
    assert {total for total, _ in first.of(digest)} == {1000}
    assert (await push(script, store)).of(digest) == [(9, 9)]


# --- before anything is sent ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("m@d", "registry.ollama.ai/library/m@d:latest"),
        ("::", "registry.ollama.ai/library/::!MISSING!"),
        ("a/b/c/d", "a/b/c/d:latest"),
    ],
)
async def test_a_bad_name(
    clock: MockClock, script: Script, store: Store, name: str, full: str
) -> None:
    pushed = await push(script, store, name=Name.parse(name))
    assert failed(pushed) == f"unqualified name: {full}"
    assert pushed.statuses == ["retrieving manifest", "couldn't retrieve manifest"]
    assert not script.requests


async def test_a_model_that_is_not_stored(clock: MockClock, script: Script, store: Store) -> None:
    pushed = await push(script, store)
    assert failed(pushed) == f"open {store.manifest_path(NAME)}: no such file or directory"
    assert pushed.statuses == ["retrieving manifest", "couldn't retrieve manifest"]


async def test_a_manifest_that_is_none(clock: MockClock, script: Script, store: Store) -> None:
    one_layer(store)
    store.manifest_path(NAME).write_bytes(b"{")
    pushed = await push(script, store)
    assert failed(pushed) == "unexpected EOF"
    assert pushed.statuses == ["retrieving manifest", "couldn't retrieve manifest"]


async def test_plain_http_must_be_asked_for(clock: MockClock, script: Script, store: Store) -> None:
    pushed = await push(script, store, name=Name.parse(f"http://{HOST}/a/b"))
    assert failed(pushed) == "insecure protocol http"
    assert pushed.statuses == ["retrieving manifest"]


async def test_insecure_is_plain_http(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script, f"http://{HOST}/v2/a/b")
    one_layer(store)
    assert (await push(script, store, insecure=True)).error is None
    assert registry.blobs == {DIGEST: CONTENT}


@pytest.mark.parametrize(
    ("digest", "text"),
    [("", "a/b: digest is empty"), ("sha256:../../x", "invalid digest format")],
)
async def test_a_bad_digest(
    clock: MockClock, script: Script, store: Store, digest: str, text: str
) -> None:
    raw = f'{{"layers":[{{"digest":"{DIGEST}"}},{{"digest":"{digest}"}}]}}'
    store.write_manifest(NAME, raw.encode())
    assert failed(await push(script, store)) == text
    assert not script.requests


async def test_a_missing_blob_is_noticed_before_another_is_sent(
    clock: MockClock, script: Script, store: Store
) -> None:
    PlainRegistry(script)
    layers = [layer_of(store, CONTENT), layer_of(store, b"gone")]
    make_model(store, layers, config=None)
    path = store.blob_path(layers[1].digest)
    path.unlink()
    assert failed(await push(script, store)) == f"stat {path}: no such file or directory"
    assert [seen.method for seen in script.requests] == ["HEAD"]


async def test_a_missing_blob_that_the_registry_has(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    layer = layer_of(store, b"gone")
    make_model(store, [layer], config=None)
    registry.blobs[layer.digest] = b"gone"
    store.blob_path(layer.digest).unlink()
    pushed = await push(script, store)
    assert pushed.error is None
    assert len(script.asked("HEAD")) == 1


async def test_a_blob_that_shrinks(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    one_layer(store)
    path = store.blob_path(DIGEST)

    def shrinks(seen: Seen) -> Reply:
        path.write_bytes(CONTENT[:120])
        answer: Reply = registry._patch(seen)
        return answer

    registry.faults = [shrinks]
    pushed = await push(script, store)
    assert failed(pushed) == f"read {path}: unexpected EOF"
    assert pushed.seconds < 1


async def test_a_deletion_meanwhile_does_not_break_a_push(
    clock: MockClock, script: Script, store: Store
) -> None:
    registry = PlainRegistry(script)
    layers = [layer_of(store, CONTENT), layer_of(store, b"second")]
    make_model(store, layers, config=None)

    def deletes(seen: Seen) -> Reply:
        store.delete(NAME)
        return registry._head(seen)

    script.on("HEAD", f"{BASE}/blobs/*", deletes, registry._head)
    assert (await push(script, store)).error is None
    assert len(registry.blobs) == 2
    assert registry.manifests
    # What the deletion had to leave goes when the push has ended.
    assert not store.has_blob(DIGEST)


# --- sharing and leaving --------------------------------------------------------------------------


async def test_pushes_share_an_upload(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(429, {"Retry-After": "5"})]
    one_layer(store)
    results: list[Pushed] = []
    async with trio.open_nursery() as nursery:
        uploads: Shared[UploadKey] = Shared(nursery)

        async def one() -> None:
            results.append(await push(script, store, uploads=uploads))

        async with trio.open_nursery() as pushes:
            pushes.start_soon(one)
            pushes.start_soon(one)
    assert [pushed.error for pushed in results] == [None, None]
    assert len(script.asked("POST")) == 1
    assert len(script.asked("PATCH")) == 4
    for pushed in results:
        assert len(pushed.of(DIGEST)) > 50
        assert pushed.of(DIGEST)[-1] == (250, 250)


async def test_two_registries_do_not_share(clock: MockClock, script: Script, store: Store) -> None:
    one, two = PlainRegistry(script), PlainRegistry(script, "https://s.test/v2/a/b")
    other = Name.parse("s.test/a/b")
    for name in (NAME, other):
        make_model(store, [layer_of(store, CONTENT)], config=None, name=name)
    async with trio.open_nursery() as nursery:
        uploads: Shared[UploadKey] = Shared(nursery)

        async def to(name: Name) -> None:
            assert (await push(script, store, name=name, uploads=uploads)).error is None

        async with trio.open_nursery() as pushes:
            pushes.start_soon(to, NAME)
            pushes.start_soon(to, other)
    assert one.blobs == two.blobs == {DIGEST: CONTENT}


async def test_lines_while_a_blob_goes_out(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [None, Reply(429, {"Retry-After": "3"})]
    one_layer(store)
    lines = (await push(script, store)).of(DIGEST)
    assert 45 <= len(lines) <= 55
    assert set(lines[:-1]) == {(250, 100)}
    assert lines[-1] == (250, 250)


async def test_who_leaves_ends_the_upload(clock: MockClock, script: Script, store: Store) -> None:
    PlainRegistry(script)
    script.on("PATCH", f"{UPLOADS}*", Reply(202, after=1000))
    one_layer(store)
    async with trio.open_nursery() as nursery:
        uploads: Shared[UploadKey] = Shared(nursery)
        with trio.move_on_after(10):
            await push(script, store, uploads=uploads)
        assert not nursery.child_tasks
        assert not uploads._transfers
    # Nobody counts on the blobs any more.
    store.delete(NAME)
    assert not store.has_blob(DIGEST)


async def test_one_of_two_leaves(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(429, {"Retry-After": "20"})]
    one_layer(store)
    async with trio.open_nursery() as nursery:
        uploads: Shared[UploadKey] = Shared(nursery)

        async def first() -> None:
            with trio.move_on_after(10):
                await push(script, store, uploads=uploads)

        async with trio.open_nursery() as pushes:
            pushes.start_soon(first)
            await trio.sleep(1)
            assert (await push(script, store, uploads=uploads)).error is None
    assert len(script.asked("POST")) == 1
    assert registry.blobs == {DIGEST: CONTENT}


async def test_an_endless_error_text_is_cut(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(500, body=[b"x" * 65536] * 50)] * 9
    one_layer(store)
    pushed = await push(script, store)
    assert len(failed(pushed)) < 70_000
    assert script.open == 0


async def test_an_answer_whose_text_stalls(clock: MockClock, script: Script, store: Store) -> None:
    registry = PlainRegistry(script)
    registry.faults = [Reply(500, body=[b"x", STALL])]
    one_layer(store)
    pushed = await push(script, store)
    assert pushed.error is None
    assert times(script.asked("PATCH"))[1] == 61


def test_small_parts_are_only_for_tests() -> None:
    assert (UploadTiming().least_part, UploadTiming().most_part) == (100_000_000, 1_000_000_000)
    assert SMALL.least_part == 100
