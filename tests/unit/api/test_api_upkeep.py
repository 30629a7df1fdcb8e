"""The endpoints for the care of the model directory: what they take, and that nobody waits."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ollamad.api.upkeep import get_disk, least_age, post_prune
from ollamad.errors import BadRequest, OllamadError
from ollamad.store.maintenance import Outcome
from ollamad.store.store import Store
from ollamad.store.usage import KINDS, Item, Kept
from ollamad.units import HOUR, MINUTE

A = "sha256-" + "a" * 64


def context(store: Any, request: Any = None) -> Any:
    async def decode(kind: type) -> Any:
        return kind(**(request or {}))

    models = SimpleNamespace(store=store)
    return SimpleNamespace(services=SimpleNamespace(models=models), decode=decode)


async def answer(response: Any) -> Any:
    assert response.status_code == 200
    return json.loads(await response.get_data())


class Recorder:
    """A store that only notes what it is asked."""

    def __init__(self, outcome: Outcome | Exception = Outcome([], [])) -> None:  # noqa: B008
        self.outcome = outcome
        self.asked: dict[str, Any] = {}
        self.thread = threading.current_thread()

    def prune_now(self, now_ns: int, **asked: Any) -> Outcome:
        self.asked = asked
        self.thread = threading.current_thread()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        ({}, {"kinds": KINDS, "least_age_ns": HOUR, "dry_run": False}),
        (
            {"dry_run": True, "older_than": "24h"},
            {"kinds": KINDS, "least_age_ns": 24 * HOUR, "dry_run": True},
        ),
        (
            {"partials": True, "older_than": "0"},
            {"kinds": ("partial",), "least_age_ns": 0, "dry_run": False},
        ),
        (
            {"partials": True, "blobs": True, "older_than": "1h30m"},
            {"kinds": ("partial", "blob"), "least_age_ns": 90 * MINUTE, "dry_run": False},
        ),
    ],
)
async def test_what_a_request_asks_for(request_: dict[str, Any], asked: dict[str, Any]) -> None:
    store = Recorder()
    assert await answer(await post_prune(context(store, request_))) == {
        "entries": [],
        "freed": 0,
        "kept": [],
    }
    assert store.asked == asked
    assert store.thread is not threading.current_thread(), "the event loop stays free"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", 'time: missing unit in duration "1"'),
        ("soon", 'time: invalid duration "soon"'),
        ("-1h", "older_than must not be negative"),
    ],
)
def test_ages_that_are_none(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        least_age(text)
    assert caught.value.message == message


async def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"blobs/\xff")
    outcome = Outcome([Item("temporary", name, (), -1)], [Kept(name, f"remove {name}: busy")])
    result = await answer(await post_prune(context(Recorder(outcome))))
    assert result["entries"][0]["name"] == "blobs/\ufffd"
    assert result["kept"] == [{"name": "blobs/\ufffd", "reason": "remove blobs/\ufffd: busy"}]


async def test_a_directory_that_cannot_be_read() -> None:
    problem = PermissionError(13, "Permission denied", "/m/blobs")
    with pytest.raises(OllamadError, match=r"^open /m/blobs: permission denied$"):
        await post_prune(context(Recorder(problem)))


async def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.ensure_directories()
    (tmp_path / "blobs" / A).write_bytes(b"x" * 5000)
    with (tmp_path / "blobs" / f"{A}-partial").open("wb") as file:
        file.truncate(1_000_000)
    threads = []
    usage = store.usage

    def noted() -> Any:
        threads.append(threading.current_thread())
        return usage()

    monkeypatch.setattr(store, "usage", noted)
    result = await answer(await get_disk(context(store)))
    assert threads
    assert threads[0] is not threading.current_thread(), "the event loop stays free"
    on_disk = (tmp_path / "blobs" / A).stat().st_blocks * 512
    nothing = {"number": 0, "size": 0, "length": 0}
    assert result.pop("total") >= result.pop("free") > 0
    assert result == {
        "directory": str(tmp_path),
        "models": [],
        "blobs": {"number": 1, "size": on_disk, "length": 5000},
        "unreferenced": {"number": 1, "size": on_disk, "length": 5000},
        "partials": {"number": 1, "size": 0, "length": 1_000_000},
        "temporary": nothing,
        "derived": nothing,
    }
