"""The list of recommendations over its life (http-api.md 16)."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.scripted_http import Fail, Reply, Script, signing_key

from ollamad.cloud_base import DEFAULT
from ollamad.registry.cloud import Cloud
from ollamad.registry.identity import Identity
from ollamad.registry.keys import SigningKey
from ollamad.registry.recommendations import Recommendations
from ollamad.registry.recommended import BUILT_IN

HOUR = 3600.0
URL = "https://ollama.com:443/api/experimental/model-recommendations?ts=1760000000"


class Known(Identity):
    async def key(self) -> SigningKey:
        await trio.lowlevel.checkpoint()
        return signing_key()


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps does not wait for them."""

    async def run_sync(function: Any, *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr("ollamad.registry.recommendations.trio.to_thread.run_sync", run_sync)


def named(*models: str) -> bytes:
    return json.dumps({"recommendations": [{"model": model} for model in models]}).encode()


@asynccontextmanager
async def recommending(
    script: Script, path: Path, *, disabled: bool = False
) -> AsyncIterator[Recommendations]:
    async with script.http() as http, trio.open_nursery() as nursery:
        who = Known(signing_key, now=lambda: 1760000000)
        cloud = Cloud(http, who, DEFAULT, disabled=disabled)
        it = Recommendations(cloud, path, chance=lambda: 0.5)
        nursery.start_soon(it.run)
        await trio.testing.wait_all_tasks_blocked()
        yield it
        nursery.cancel_scope.cancel()


def script(*answers: Any) -> Script:
    it = Script()
    it.on("GET", URL, *answers)
    return it


def models(it: Recommendations) -> list[str]:
    return [entry.model for entry in it.models]


async def test_it_is_fetched_and_kept(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    path = tmp_path / ".ollama" / "cache" / "model-recommendations.json"
    asked = script(Reply(body=named("a", "b")), Reply(body=named("c")))
    async with recommending(asked, path) as it:
        assert it.models == BUILT_IN
        await trio.sleep(60)
        assert models(it) == ["a", "b"]
        assert json.loads(path.read_bytes()) == {
            "recommendations": [
                {"model": "a", "description": ""},
                {"model": "b", "description": ""},
            ]
        }
        await trio.sleep(4 * HOUR)
        assert models(it) == ["c"]
    assert [s.at for s in asked.requests] == pytest.approx([30, 30 + 4 * HOUR])
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600
    async with recommending(script(Fail()), path) as it:
        assert models(it) == ["c"]


async def test_a_damaged_snapshot_is_as_good_as_none(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    no_text = named("unlikely").replace(b"unlikely", b"\xff")
    for damage in (b"", named("a")[:-5], b"x" * 300_000, no_text):
        path.write_bytes(damage)
        async with recommending(script(Fail()), path) as it:
            assert it.models == BUILT_IN


async def test_failures_change_nothing_and_make_no_noise(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "x.json"
    path.write_bytes(named("a"))
    asked = script(Fail(), Reply(500), Reply(body=b"no"), Reply(after=4), Reply(body=named("b")))
    async with recommending(asked, path) as it:
        await trio.sleep(5 * HOUR)
        assert models(it) == ["a"]
        await trio.sleep(HOUR)
        assert models(it) == ["b"]
    # After 5, 15 and 60 minutes, then after four hours; the fourth waited three seconds.
    ends = [30, 330, 1230, 4830, 4830 + 3 + 4 * HOUR]
    assert [s.at for s in asked.requests] == pytest.approx(ends)
    assert caplog.records == []


async def test_a_reader_gets_what_is_there_and_has_it_fetched(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    asked = script(Reply(body=named("a"), after=1), Reply(body=named("b"), after=1))
    async with recommending(asked, tmp_path / "x.json") as it:
        assert it.read() == BUILT_IN
        await trio.sleep(2)
        assert [m.model for m in it.read()] == ["a"]
        await trio.sleep(2.5)
        it.read()
        await trio.sleep(0.4)
        assert len(asked.requests) == 1
        await trio.sleep(0.2)
        assert [m.model for m in it.read()] == ["a"]
        await trio.sleep(2)
        assert models(it) == ["b"]
    assert [s.at for s in asked.requests] == pytest.approx([0, 5.1])


async def test_a_disabled_cloud_is_not_asked(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(named("a"))
    asked = Script()
    async with recommending(asked, path, disabled=True) as it:
        assert [m.model for m in it.read()] == ["a"]
        await trio.sleep(10 * HOUR)
        it.read()
        await trio.sleep(10)
    assert asked.requests == []


async def test_a_directory_that_cannot_be_written_is_no_reason_to_forget(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    asked = script(Reply(body=named("a")))
    async with recommending(asked, tmp_path / "file" / "x.json") as it:
        it.read()
        await trio.sleep(1)
        assert models(it) == ["a"]
