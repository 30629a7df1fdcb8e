"""One blob from a registry that has its moods (registry-and-store 3.5, 3.6, 10.8)."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from fetching import BASE, World, content, digest_of, jumping_clock, served, world_in
from support.scripted_http import CUT, RESET, STALL, Fail, Reply, Seen, Wait
from trio.abc import Clock

from ollamad.errors import OllamadError
from ollamad.registry import fetch, parts
from ollamad.registry.download import Timing
from ollamad.registry.fetch import DigestMismatch
from ollamad.registry.parts import Part, encode_part, parse_part
from ollamad.store.partials import Partial

DATA = content(250)
DIGEST = digest_of(DATA)
NAME = DIGEST.replace(":", "-")


@pytest.fixture
def mock_clock() -> Clock:
    return jumping_clock()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as world:
        yield world


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 100 bytes, so that small blobs have several."""
    monkeypatch.setattr(fetch, "cut", lambda total: parts.cut(total, 100, 1000))


async def test_the_worked_example(mock_clock: Any, world: World) -> None:
    world.blob(DATA)
    transfer = await world.fetch(DIGEST, 250)
    assert world.stored(DIGEST) == DATA
    assert world.files() == [NAME]
    assert (transfer.total, transfer.completed) == (250, 250)
    url = f"{BASE}/blobs/{DIGEST}"
    assert [
        (seen.method, seen.url, seen.headers.get("range")) for seen in world.script.requests
    ] == [
        ("HEAD", url, None),
        ("GET", url, None),
        ("GET", url, "bytes=0-249"),
    ]
    assert {seen.headers["accept-encoding"] for seen in world.script.requests} == {"identity"}
    assert world.script.open == 0


async def test_an_empty_blob_has_no_part_to_ask_for(mock_clock: Any, world: World) -> None:
    digest = world.blob(b"")
    await world.fetch(digest)
    assert world.stored(digest) == b""
    assert [seen.method for seen in world.script.requests] == ["HEAD", "GET"]


@pytest.mark.usefixtures("small_parts")
async def test_parts_are_asked_for_where_the_registry_points(mock_clock: Any, world: World) -> None:
    """9.4 with a CDN: the redirect of the first request is where the parts come from."""
    cdn = "https://cdn.test/d?sig=a%2Fb&z=1&a=2"
    world.blob(DATA)
    world.script.on("GET", f"{BASE}/blobs/{DIGEST}", Reply(307, {"Location": cdn}))
    world.script.on("GET", cdn, served(DATA))
    await world.fetch(DIGEST, 250)
    assert world.stored(DIGEST) == DATA
    assert sorted(range for _, range in world.ranges("cdn.test")) == ["0-99", "100-199", "200-249"]
    assert all("authorization" not in seen.headers for seen in world.script.asked("", "cdn.test"))


async def test_a_location_beside_200(mock_clock: Any, world: World) -> None:
    world.blob(DATA)
    there = "/cdn/x?sig=a%2Fb&z=1&a=2"
    world.script.on("GET", f"{BASE}/blobs/{DIGEST}", Reply(200, {"Location": there}, b"x"))
    world.script.on("GET", f"https://r.test{there}", served(DATA))
    await world.fetch(DIGEST, 250)
    assert [seen.path for seen in world.script.asked("GET") if "range" in seen.headers] == [there]


async def test_a_part_request_is_redirected_on_and_keeps_its_range(
    mock_clock: Any, world: World
) -> None:
    world.blob(DATA)
    one, other = "https://a.test/d", "https://b.test/d"
    world.script.on("HEAD", f"{BASE}/blobs/{DIGEST}", Reply(307, {"Location": one}))
    world.script.on("HEAD", one, Reply(307, {"Location": other}))
    world.script.on("HEAD", other, Reply(200, {"Content-Length": "250"}))
    world.script.on("GET", f"{BASE}/blobs/{DIGEST}", Reply(307, {"Location": one}))
    world.script.on("GET", one, Reply(307, {"Location": other}))
    world.script.on("GET", other, served(DATA))
    await world.fetch(DIGEST, 250)
    asked = [(seen.url, seen.headers.get("range")) for seen in world.script.asked("GET")]
    assert asked[1:] == [(one, "bytes=0-249"), (other, "bytes=0-249")]


# --- broken attempts ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_a_broken_connection_costs_no_byte(mock_clock: Any, world: World, end: Any) -> None:
    def cut(piece: bytes) -> list[Any]:
        return [piece[:30], piece[30:60], end]

    world.blob(DATA, *[served(DATA, cut)] * 3)
    await world.fetch(DIGEST, 250)
    assert world.ranges() == [(0, "0-249"), (1, "60-249"), (3, "120-249"), (7, "180-249")]
    assert world.stored(DIGEST) == DATA


async def test_what_was_there_is_noted_between_the_attempts(mock_clock: Any, world: World) -> None:
    noted: list[int] = []

    def answer(seen: Seen) -> Any:
        notes = [parse_part(raw) for raw in world.store.partial(DIGEST).notes()]
        noted.extend(part.completed for part in notes if part is not None)
        return served(DATA, lambda piece: [piece[:60], CUT] if len(noted) < 3 else [piece])(seen)

    world.blob(DATA, answer, answer, answer)
    await world.fetch(DIGEST, 250)
    assert noted[0] == 0
    assert noted[-1] >= 60


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_a_part_that_ends_before_it_begins(mock_clock: Any, world: World, end: Any) -> None:
    world.blob(DATA, served(DATA, lambda piece: [end]))
    await world.fetch(DIGEST, 250)
    assert world.ranges() == [(0, "0-249"), (1, "0-249")]


async def test_no_connection_for_a_part(mock_clock: Any, world: World) -> None:
    world.blob(DATA, Fail(), Fail("EOF", connected=True))
    await world.fetch(DIGEST, 250)
    assert [at for at, _ in world.ranges()] == [0, 1, 3]


async def test_a_stall_keeps_what_came_and_is_not_counted(mock_clock: Any, world: World) -> None:
    nothing = served(DATA, lambda piece: [STALL])
    some = served(DATA, lambda piece: [Wait(1), piece[:100], STALL])
    world.blob(DATA, nothing, some)
    await world.fetch(DIGEST, 250)
    assert [range for _, range in world.ranges()] == ["0-249", "0-249", "100-249"]
    times = [at for at, _ in world.ranges()]
    assert 30 <= times[1] <= 31
    assert 31 <= times[2] - times[1] <= 32
    assert world.script.open == 0


async def test_a_server_that_never_answers_has_stalled_too(mock_clock: Any, world: World) -> None:
    world.blob(DATA, Reply(206, after=1e9))
    await world.fetch(DIGEST, 250)
    assert [round(at / 31) for at, _ in world.ranges()] == [0, 1]


async def test_a_part_that_always_fails(mock_clock: Any, world: World) -> None:
    world.blob(DATA, *[Reply(500, body=b"oops")] * 99)
    with pytest.raises(OllamadError, match="max retries exceeded: unexpected status code 500"):
        await world.fetch(DIGEST, 250)
    assert [at for at, _ in world.ranges()] == [0, 1, 3, 7, 15, 31]
    assert 63 <= trio.current_time() < 64
    assert world.files() == [f"{NAME}-partial", f"{NAME}-partial-0"]
    assert world.script.open == 0


@pytest.mark.usefixtures("small_parts")
async def test_when_one_part_gives_up_the_others_keep_what_they_have(
    mock_clock: Any, world: World
) -> None:
    world.timing = Timing(drip=1e9)

    def answer(seen: Seen) -> Any:
        if seen.headers["range"] == "bytes=0-99":
            return served(DATA, lambda piece: [piece[:40], *[Wait(20), piece[40:41]] * 9])(seen)
        return Reply(500)

    world.blob(DATA, *[answer] * 99)
    with pytest.raises(OllamadError, match="max retries exceeded"):
        await world.fetch(DIGEST, 250)
    assert 63 <= trio.current_time() < 64
    notes = [parse_part(raw) for raw in world.store.partial(DIGEST).notes()]
    assert Part(0, 0, 100, 43) in notes


@pytest.mark.parametrize(
    "wrong",
    [
        Reply(200, body=DATA[60:]),
        Reply(200, {"Content-Length": "250"}, [DATA]),
        Reply(206, {"Content-Length": "190"}, [DATA[:190]]),
        Reply(206, {"Content-Range": "bytes 0-189/250"}, [DATA[:190]]),
        Reply(206, {"Content-Range": "bytes 60-249/250", "Content-Length": "100"}, [DATA[60:160]]),
        Reply(429, body=DATA),
        Reply(416, body=DATA),
    ],
)
async def test_no_other_answer_reaches_the_file(
    mock_clock: Any, world: World, wrong: Reply
) -> None:
    world.blob(DATA, served(DATA, lambda piece: [piece[:60], CUT]), wrong)
    await world.fetch(DIGEST, 250)
    assert [range for _, range in world.ranges()] == ["0-249", "60-249", "60-249"]
    assert world.stored(DIGEST) == DATA


async def test_the_whole_blob_instead_of_a_range_will_do_for_the_first_request(
    mock_clock: Any,
    world: World,
) -> None:
    world.blob(DATA, Reply(200, {"Content-Length": "250"}, [DATA]))
    await world.fetch(DIGEST, 250)
    assert world.ranges() == [(0, "0-249")]


async def test_more_than_was_asked_for_is_not_read(mock_clock: Any, world: World) -> None:
    headers = {"Content-Range": "bytes 0-249/250"}
    world.blob(DATA, Reply(206, headers, [DATA[:200], DATA[200:] + b"surplus", STALL]))
    await world.fetch(DIGEST, 250)
    assert world.stored(DIGEST) == DATA
    assert trio.current_time() < 1


async def test_a_busy_registry_says_when(mock_clock: Any, world: World) -> None:
    world.blob(DATA, Reply(429, {"Retry-After": "7"}))
    await world.fetch(DIGEST, 250)
    assert [at for at, _ in world.ranges()] == [0, 7]


async def test_an_expired_signature_is_renewed(mock_clock: Any, world: World) -> None:
    world.blob(DATA)
    urls = [f"https://cdn.test/d?sig={n}" for n in range(2)]
    redirects = [Reply(307, {"Location": url}) for url in urls]
    world.script.on("GET", f"{BASE}/blobs/{DIGEST}", *redirects)
    expired = served(DATA, lambda piece: [piece[:60], CUT])
    world.script.on("GET", urls[0], expired, Reply(403, body=b"expired"))
    world.script.on("GET", urls[1], served(DATA))
    await world.fetch(DIGEST, 250)
    assert [seen.url for seen in world.script.asked("GET", "cdn")] == [urls[0], urls[0], urls[1]]
    assert world.ranges(urls[1])[0][1] == "60-249"


async def test_an_expired_signature_that_is_not_renewed(mock_clock: Any, world: World) -> None:
    world.blob(DATA)
    url = "https://cdn.test/d?sig=0"
    world.script.on(
        "GET", f"{BASE}/blobs/{DIGEST}", Reply(307, {"Location": url}), Reply(500, body=b"no more")
    )
    expired = served(DATA, lambda piece: [piece[:60], CUT])
    world.script.on("GET", url, expired, Reply(403, body=b"expired"))
    with pytest.raises(OllamadError, match=r"^context deadline exceeded$"):
        await world.fetch(DIGEST, 250)
    assert world.store.partial(DIGEST).notes() == [encode_part(Part(0, 0, 250, 60))]
    assert world.script.open == 0


async def test_an_expired_token_is_renewed(mock_clock: Any, world: World) -> None:
    """The parts of a plain registry need it, and a long pull outlives it."""
    world.blob(DATA)
    tokens = iter(["one", "two"])
    challenge = {"WWW-Authenticate": 'Bearer realm="https://r.test/token",service="s",scope="x"'}
    world.script.on(
        "GET",
        "https://r.test/token*",
        lambda seen: Reply(body=f'{{"token":"{next(tokens)}"}}'.encode()),
    )
    valid = "one"

    def guarded(answer: Any) -> Any:
        def check(seen: Seen) -> Any:
            nonlocal valid
            if seen.headers.get("authorization") != f"Bearer {valid}":
                return Reply(401, challenge)
            if "range" in seen.headers and valid == "one":
                valid = "two"
                return served(DATA, lambda piece: [piece[:60], CUT])(seen)
            return answer(seen)

        return check

    url = f"{BASE}/blobs/{DIGEST}"
    world.script.on("HEAD", url, guarded(lambda seen: Reply(200, {"Content-Length": "250"})))
    world.script.on("GET", url, guarded(served(DATA)))
    await world.fetch(DIGEST, 250)
    assert world.stored(DIGEST) == DATA
    assert [range for _, range in world.ranges()] == ["0-249", "60-249", "60-249"]


# --- before the parts -----------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "text"), [(404, "file does not exist"), (500, "500: ")])
async def test_an_error_of_head_is_final(
    mock_clock: Any, world: World, status: int, text: str
) -> None:
    world.blob(DATA)
    world.script.on("HEAD", f"{BASE}/blobs/{DIGEST}", Reply(status))
    with pytest.raises(OllamadError) as caught:
        await world.fetch(DIGEST, 250)
    assert caught.value.message == text
    assert len(world.script.requests) == 1
    assert world.files() == []


async def test_head_without_a_length(mock_clock: Any, world: World) -> None:
    world.blob(DATA)
    world.script.on("HEAD", f"{BASE}/blobs/{DIGEST}", Reply(200, body=[]))
    await world.fetch(DIGEST, 250)
    assert world.stored(DIGEST) == DATA


@pytest.mark.parametrize(("length", "stated"), [(251, 250), (2**50 + 1, 0), (10**30, 0)])
async def test_a_blob_larger_than_its_manifest_says(
    mock_clock: Any, world: World, length: int, stated: int
) -> None:
    world.blob(DATA, size=length)
    with pytest.raises(OllamadError, match=f"the registry has {length} bytes"):
        await world.fetch(DIGEST, stated)
    assert world.files() == []
    assert world.ranges() == []


async def test_the_registry_is_believed_when_the_manifest_says_nothing(
    mock_clock: Any, world: World
) -> None:
    world.blob(DATA)
    await world.fetch(DIGEST)
    assert world.stored(DIGEST) == DATA


async def test_no_room_for_a_blob_of_unknown_size(
    mock_clock: Any, world: World, monkeypatch: Any
) -> None:
    monkeypatch.setattr(world.store, "free_bytes", lambda: 20_000_000)
    world.blob(DATA, size=10_000_000)
    with pytest.raises(OllamadError, match="not enough disk space"):
        await world.fetch(DIGEST)
    assert world.ranges() == []
    assert world.files() == []


@pytest.mark.parametrize("wrong", [Reply(500), Fail(), Reply(404), Reply(429)])
async def test_half_a_minute_for_the_direct_url(mock_clock: Any, world: World, wrong: Any) -> None:
    world.blob(DATA)
    world.script.on("GET", f"{BASE}/blobs/{DIGEST}", wrong)
    with pytest.raises(OllamadError) as caught:
        await world.fetch(DIGEST, 250)
    assert caught.value.message == "context deadline exceeded"
    assert 29 < trio.current_time() < 31
    assert 17 <= len(world.script.asked("GET")) <= 26


async def test_a_loop_on_the_way_to_the_direct_url(mock_clock: Any, world: World) -> None:
    url = f"{BASE}/blobs/{DIGEST}"
    world.blob(DATA)
    world.script.on("GET", url, Reply(307, {"Location": url}))
    with pytest.raises(OllamadError, match="context deadline exceeded"):
        await world.fetch(DIGEST, 250)
    assert len(world.script.asked("GET")) % 11 == 0


async def test_the_direct_url_may_come_late(mock_clock: Any, world: World) -> None:
    world.blob(DATA)
    url = f"{BASE}/blobs/{DIGEST}"
    world.script.on("GET", url, Reply(502), Fail(), Reply(503), served(DATA))
    await world.fetch(DIGEST, 250)
    assert world.stored(DIGEST) == DATA


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(307), "http: no Location header in response"),
        (Reply(204), "unexpected status code 204"),
    ],
)
async def test_what_no_direct_url_can_be_read_from(
    mock_clock: Any, world: World, reply: Reply, text: str
) -> None:
    world.blob(DATA)
    world.script.on("GET", f"{BASE}/blobs/{DIGEST}", reply)
    with pytest.raises(OllamadError) as caught:
        await world.fetch(DIGEST, 250)
    assert caught.value.message == text
    assert trio.current_time() == 0


async def test_who_is_denied_does_not_ask_on(mock_clock: Any, world: World) -> None:
    """Each try would be another signature."""
    world.blob(DATA)
    challenge = {"WWW-Authenticate": 'Bearer realm="https://r.test/token",service="s",scope="x"'}
    world.script.on("GET", "https://r.test/token*", Reply(body=b'{"token":"t"}'))
    world.script.on("GET", f"{BASE}/blobs/{DIGEST}", Reply(401, challenge))
    with pytest.raises(OllamadError, match="unauthorized: access denied"):
        await world.fetch(DIGEST, 250)
    assert len(world.script.asked("GET", DIGEST)) == 2


async def test_an_internal_target_is_refused_at_once(mock_clock: Any, world: World) -> None:
    world.blob(DATA)
    target = "https://inside.test/d"
    world.script.addresses["inside.test"] = "10.0.0.1"
    world.script.on("GET", f"{BASE}/blobs/{DIGEST}", Reply(307, {"Location": target}))
    with pytest.raises(OllamadError, match=r"refused: registry .* internal address 10\.0\.0\.1"):
        await world.fetch(DIGEST, 250)
    assert trio.current_time() < 1
    assert world.ranges() == []


# --- verification ---------------------------------------------------------------------------------


async def test_wrong_bytes_never_become_a_blob(mock_clock: Any, world: World) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    world.blob(wrong, digest=DIGEST)
    with pytest.raises(DigestMismatch) as caught:
        await world.fetch(DIGEST, 250)
    assert caught.value.message == (
        f"digest mismatch, file must be downloaded again: want {DIGEST}, got {digest_of(wrong)}"
    )
    assert world.files() == []


@pytest.mark.parametrize("digest", [NAME, DIGEST.upper().replace("SHA", "sha")])
async def test_other_spellings_of_a_digest_are_asked_for_but_never_right(
    mock_clock: Any, world: World, digest: str
) -> None:
    world.blob(DATA, digest=digest)
    with pytest.raises(DigestMismatch, match=f"want {digest}, got {DIGEST}"):
        await world.fetch(digest, 250)
    assert world.files() == []


# --- disks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space left on device"),
        (errno.EDQUOT, "disk quota exceeded"),
        (errno.EROFS, "read-only file system"),
        (errno.EIO, "input/output error"),
    ],
)
async def test_a_disk_that_takes_no_more_ends_it_at_once(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    def full(self: Partial, chunks: Any, offset: int) -> int:
        raise OSError(number, os.strerror(number))

    world.blob(DATA)
    monkeypatch.setattr(Partial, "write", full)
    with pytest.raises(OllamadError) as caught:
        await world.fetch(DIGEST, 250)
    path = world.store.blob_path(DIGEST)
    assert caught.value.message == f"write {path}-partial: {text}"
    assert len(world.ranges()) == 1
    assert trio.current_time() < 1
    assert world.files() == [f"{NAME}-partial", f"{NAME}-partial-0"]


def link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Path.mkdir, "open {}: is a directory"),
        (link, "open {}: too many levels of symbolic links"),
        (os.mkfifo, "write {}: invalid argument"),
    ],
)
async def test_what_is_in_the_place_of_the_data(
    mock_clock: Any, world: World, make: Any, text: str
) -> None:
    """Said before anything is fetched, and nothing waits for a pipe's other end."""
    world.blob(DATA)
    path = world.store.partial(DIGEST).path
    path.parent.mkdir(parents=True)
    make(path)
    with pytest.raises(OllamadError) as caught:
        await world.fetch(DIGEST, 250)
    assert caught.value.message == text.format(path)
    assert world.ranges() == []
    assert not path.with_name("elsewhere").exists()


async def test_notes_that_cannot_be_written_end_it(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.blob(DATA, served(DATA, lambda piece: [piece[:60], STALL]))
    real = Partial.note

    def full(self: Partial, number: int, raw: bytes) -> None:
        if b'"Completed":0' not in raw:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        real(self, number, raw)

    monkeypatch.setattr(Partial, "note", full)
    with pytest.raises(OllamadError, match="no space left on device"):
        await world.fetch(DIGEST, 250)
    assert trio.current_time() < 3


async def test_lost_bytes_are_never_noted(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells of them once; a second sync succeeds, and then they are not there."""
    world.blob(DATA, served(DATA, lambda piece: [piece[:60], STALL]))
    syncs: list[None] = []

    def lost(self: Partial) -> None:
        syncs.append(None)
        if len(syncs) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Partial, "sync", lost)
    with pytest.raises(OllamadError, match="-partial: input/output error"):
        await world.fetch(DIGEST, 250)
    assert world.store.partial(DIGEST).notes() == [encode_part(Part(0, 0, 250))]


async def test_files_that_cannot_be_touched_end_it_with_that(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.timing = Timing(touch=3)
    world.blob(DATA, served(DATA, lambda piece: [piece[:60], STALL]))

    def read_only(path: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", read_only)
    with pytest.raises(OllamadError) as caught:
        await world.fetch(DIGEST, 250)
    path = world.store.blob_path(DIGEST)
    assert caught.value.message == f"touch {path}-partial: read-only file system"


async def test_another_users_notes_need_no_touch(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.timing = Timing(touch=3)
    world.blob(DATA, served(DATA, lambda piece: [piece[:60], Wait(9), piece[60:]]))
    real = os.utime

    def refuse(path: Any) -> None:
        if isinstance(path, Path):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        real(path)

    monkeypatch.setattr(os, "utime", refuse)
    await world.fetch(DIGEST, 250)
    assert world.stored(DIGEST) == DATA


async def test_what_cannot_be_read_again_ends_it(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Partial, buffer: memoryview, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    world.blob(DATA)
    monkeypatch.setattr(Partial, "read_into", broken)
    with pytest.raises(OllamadError, match=r"read .*-partial: input/output error"):
        await world.fetch(DIGEST, 250)
    assert trio.current_time() < 2


async def test_a_file_that_is_cut_behind_our_back(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.blob(DATA)
    monkeypatch.setattr(Partial, "read_into", lambda self, buffer, offset: 0)
    with pytest.raises(OllamadError, match="input/output error"):
        await world.fetch(DIGEST, 250)


async def test_a_directory_that_cannot_be_made(mock_clock: Any, world: World) -> None:
    world.store.root.write_text("a file")
    with pytest.raises(OllamadError, match="not a directory"):
        await world.fetch(DIGEST, 250)


# --- resuming -------------------------------------------------------------------------------------


def _leave(world: World, data: bytes, *parts: Part) -> None:
    """What an earlier process left behind."""
    path = world.store.partial(DIGEST).path
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    for part in parts:
        path.with_name(f"{path.name}-{part.number}").write_bytes(encode_part(part))


async def test_only_what_is_missing_is_fetched(mock_clock: Any, world: World) -> None:
    _leave(world, DATA[:160] + bytes(90), Part(0, 0, 100, 100), Part(1, 100, 150, 60))
    world.blob(DATA)
    await world.fetch(DIGEST, 250)
    assert [seen.method for seen in world.script.requests] == ["GET", "GET"]
    assert world.ranges() == [(0, "160-249")]
    assert world.files() == [NAME]


async def test_a_short_data_file_is_extended(mock_clock: Any, world: World) -> None:
    _leave(world, DATA[:160], Part(0, 0, 250, 160))
    world.blob(DATA)
    await world.fetch(DIGEST, 250)
    assert world.ranges() == [(0, "160-249")]


async def test_what_is_complete_is_only_verified(mock_clock: Any, world: World) -> None:
    _leave(world, DATA, Part(0, 0, 250, 250))
    transfer = await world.fetch(DIGEST, 250)
    assert world.script.requests == []
    assert world.stored(DIGEST) == DATA
    assert (transfer.total, transfer.completed) == (250, 250)


async def test_damage_shows_in_the_end_and_is_removed(mock_clock: Any, world: World) -> None:
    _leave(world, bytes(160), Part(0, 0, 250, 160))
    world.blob(DATA)
    with pytest.raises(DigestMismatch):
        await world.fetch(DIGEST, 250)
    assert world.files() == []
    await world.fetch(DIGEST, 250)
    assert world.stored(DIGEST) == DATA


@pytest.mark.parametrize(
    "left",
    [
        [Part(1, 100, 150, 50)],
        [Part(0, 0, 100, 100)],
        [Part(0, 0, 251, 100)],
        [Part(0, 0, 250, 251)],
        [Part(0, 0, 2**60, 5)],
    ],
)
async def test_a_doubtful_set_is_thrown_away(
    mock_clock: Any, world: World, left: list[Part]
) -> None:
    _leave(world, bytes(250), *left)
    world.blob(DATA)
    await world.fetch(DIGEST, 250)
    assert [seen.method for seen in world.script.requests] == ["HEAD", "GET", "GET"]
    assert world.ranges() == [(0, "0-249")]
    assert world.files() == [NAME]


async def test_an_impossible_size_is_thrown_away_too(mock_clock: Any, world: World) -> None:
    """Where the manifest says nothing of the size, part files could say anything."""
    _leave(world, bytes(250), Part(0, 0, 2**51, 100))
    world.blob(DATA)
    await world.fetch(DIGEST)
    assert world.ranges() == [(0, "0-249")]


async def test_a_note_that_cannot_be_read_is_thrown_away(mock_clock: Any, world: World) -> None:
    _leave(world, bytes(250), Part(0, 0, 250, 100))
    path = world.store.partial(DIGEST).path
    path.with_name(f"{path.name}-0").write_bytes(b"")
    world.blob(DATA)
    await world.fetch(DIGEST, 250)
    assert world.ranges() == [(0, "0-249")]


async def test_cancelling_keeps_what_came(mock_clock: Any, world: World) -> None:
    world.blob(DATA, served(DATA, lambda piece: [piece[:60], STALL]))
    with trio.move_on_after(0.5):
        await world.fetch(DIGEST, 250)
    [raw] = world.store.partial(DIGEST).notes()
    assert parse_part(raw) == Part(0, 0, 250, 60)
    assert world.script.open == 0
    await world.fetch(DIGEST, 250)
    assert [range for _, range in world.ranges()] == ["0-249", "60-249"]
    assert world.stored(DIGEST) == DATA


async def test_leaving_when_all_has_come_but_is_not_hashed(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.blob(DATA)
    scope = trio.CancelScope()

    def hash_until(self: Any, end: int) -> None:
        trio.from_thread.run_sync(scope.cancel)  # the last client leaves

    with monkeypatch.context() as patch:
        patch.setattr(fetch._Fetch, "_hash_until", hash_until)
        with scope:
            await world.fetch(DIGEST, 250)
    assert scope.cancelled_caught
    [raw] = world.store.partial(DIGEST).notes()
    assert parse_part(raw) == Part(0, 0, 250, 250)
    await world.fetch(DIGEST, 250)
    assert [range for _, range in world.ranges()] == ["0-249"]
    assert world.stored(DIGEST) == DATA


@pytest.mark.parametrize("late", [0.0, 0.2, 1.1])
async def test_a_crash_costs_a_second(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    """As if killed: nothing is flushed, nothing noted at the end."""

    def slowly(piece: bytes) -> list[Any]:
        return [item for i in range(250) for item in (Wait(0.1), piece[i : i + 1])]

    world.blob(DATA, served(DATA, slowly))
    with trio.move_on_after(10 + late):
        try:
            await world.fetch(DIGEST, 250)
        finally:
            [raw] = world.store.partial(DIGEST).notes()
    part = parse_part(raw)
    assert part is not None
    lost = (trio.current_time() * 10) - part.completed
    assert lost <= 12
    assert world.store.partial(DIGEST).path.read_bytes()[: part.completed] == DATA[: part.completed]


async def test_files_in_use_look_young(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[int] = []
    monkeypatch.setattr(Partial, "touch", lambda self: touched.append(1))

    def slowly(piece: bytes) -> list[Any]:
        return [item for i in range(25) for item in (Wait(14), piece[i * 10 : i * 10 + 10])]

    world.timing = Timing(touch=100, drip=1e9)
    world.blob(DATA, served(DATA, slowly))
    await world.fetch(DIGEST, 250)
    assert len(touched) == 3


# --- another process ------------------------------------------------------------------------------


async def test_who_comes_second_waits_and_finds_it_done(mock_clock: Any, world: World) -> None:
    other = world.store.partial(DIGEST)
    assert other.acquire()
    other.write([DATA[:100]], 0)
    other.note(0, encode_part(Part(0, 0, 250, 100)))
    transfer = fetch.Transfer()

    async def finish() -> None:
        await trio.sleep(5)
        assert (transfer.total, transfer.completed) == (250, 100)
        other.write([DATA[100:]], 100)
        other.promote()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish)
        wanted = fetch.Wanted(DIGEST, 250)
        await fetch.fetch_blob(world.session(), world.store, wanted, transfer, timing=world.timing)
    assert world.script.requests == []
    assert world.files() == [NAME]


async def test_who_comes_second_goes_on_when_the_first_dies(mock_clock: Any, world: World) -> None:
    other = world.store.partial(DIGEST)
    assert other.acquire()
    other.resize(250)
    other.write([DATA[:100]], 0)
    other.note(0, encode_part(Part(0, 0, 250, 100)))
    world.blob(DATA)

    async def die() -> None:
        await trio.sleep(5)
        other.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(die)
        await world.fetch(DIGEST, 250)
    assert [range for _, range in world.ranges()] == ["100-249"]
    assert world.stored(DIGEST) == DATA


async def test_who_comes_between_the_blob_and_the_end_of_its_notes(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has renamed the data, which frees the name of the lock, and is not done yet."""
    other = world.store.partial(DIGEST)
    assert other.acquire()
    other.write([DATA], 0)
    other.note(0, encode_part(Part(0, 0, 250, 250)))
    with monkeypatch.context() as patch:
        patch.setattr(Partial, "_remove_notes", lambda self: None)
        other.promote()
    await world.fetch(DIGEST, 250)
    assert world.files() == [NAME]
    assert world.script.requests == []


async def test_waiting_for_another_process_can_be_given_up(mock_clock: Any, world: World) -> None:
    other = world.store.partial(DIGEST)
    assert other.acquire()
    with trio.move_on_after(3) as scope:
        await world.fetch(DIGEST, 250)
    assert scope.cancelled_caught


# --- many parts -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_parts")
async def test_large_pieces_and_many_parts(mock_clock: Any, world: World) -> None:
    data = content(15_950, seed=3)
    digest = world.blob(data)
    await world.fetch(digest, len(data))
    assert world.stored(digest) == data
    assert len(world.ranges()) == 17


async def test_pieces_are_gathered_before_they_are_written(
    mock_clock: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = Partial.write

    def counted(self: Partial, chunks: Any, offset: int) -> int:
        sizes.append(sum(map(len, chunks)))
        return real(self, chunks, offset)

    monkeypatch.setattr(Partial, "write", counted)
    data = content(2_000_000)

    def in_pieces(piece: bytes) -> list[bytes]:
        return [piece[i : i + 10_000] for i in range(0, len(piece), 10_000)]

    digest = world.blob(data, served(data, in_pieces))
    await world.fetch(digest, len(data))
    assert world.stored(digest) == data
    assert len(sizes) == 4
    assert min(sizes[:-1]) >= 512 * 1024
