"""Creates that are given up, that meet each other, and that meet deletions (4.15)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
import trio
import trio.testing
from support.creating import Creator, G, digest_of, gguf

from ollamad.create.apply import create_events
from ollamad.create.copying import Copying
from ollamad.create.disk import CreateDisk
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import CreateRequest


def split_files(creator: Creator) -> dict[str, str]:
    return {
        f"m-0000{n + 1}-of-00002.gguf": creator.upload(
            gguf(tensors={f"t{n}": 500}, split__no=n, split__count=2)
        )
        for n in range(2)
    }


def temporaries(creator: Creator) -> set[str]:
    return {name for name in creator.blobs() if len(name) != len("sha256-") + 64}


async def test_given_up_after_any_event_the_target_is_as_before(with_a: Creator) -> None:
    await with_a.events(**{"from": "a"}, model="m", system="before")
    before = with_a.layers("m")
    files = split_files(with_a)
    events = 0
    while True:
        request = CreateRequest(model="m", files=files, system="after")
        taken = 0
        async with aclosing(create_events(with_a.store, request, locks=with_a.locks)) as stream:
            async for _ in stream:
                taken += 1
                if taken > events:
                    break
            else:
                break
        assert temporaries(with_a) == set()
        if with_a.layers("m") != before:
            # Only the last event comes after the manifest.
            assert taken == 7
        events += 1
    assert taken == 7
    assert with_a.texts("m") == [("system", b"after")]


@pytest.mark.parametrize(
    ("place", "method"),
    [
        (CreateDisk, "inherit"),
        (CreateDisk, "validate"),
        (CreateDisk, "read_upload"),
        (CreateDisk, "store_texts"),
        (Copying, "start"),
        (Copying, "advance"),
        (Copying, "commit"),
    ],
)
async def test_cancelled_in_any_step_nothing_is_left(
    place: type, method: str, with_a: Creator, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = split_files(with_a) | {"x.gguf": with_a.upload(gguf(tensors={"x": 7}))}
    original: Callable[..., Any] = getattr(place, method)
    scope = trio.CancelScope()

    def cancelling(self: object, *arguments: object) -> object:
        trio.from_thread.run_sync(scope.cancel)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(place, method, cancelling)
        with scope:
            if method == "inherit":
                await with_a.events(**{"from": "a"}, model="m")
            else:
                await with_a.events(model="m", files=files, system="S")
    assert scope.cancelled_caught
    assert temporaries(with_a) == set()
    assert [name.short for name, _ in with_a.store.manifests()] == ["a:latest"]
    # Neither a lock nor a hold on a blob is left.
    await with_a.events(model="m", files=files, system="S")
    with_a.store.delete(Name.parse("m"))
    assert not with_a.store.has_blob(digest_of(b"S"))


async def test_uploads_are_kept_while_the_request_runs(with_a: Creator) -> None:
    digest = with_a.upload(G + b"")
    request = CreateRequest(model="m", files={"g.gguf": digest})
    async with aclosing(create_events(with_a.store, request, locks=with_a.locks)) as events:
        await anext(events)
        with_a.store.delete(Name.parse("a"))
        assert with_a.store.has_blob(digest)
        async for _ in events:
            pass
    assert with_a.layers("m") == [("model", G, "")]


async def test_blobs_of_a_base_are_kept_while_it_is_deleted(
    with_a: Creator, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CreateDisk.inherit

    def deleting(self: CreateDisk, name: Name) -> object:
        found = original(self, name)
        self.store.delete(name)
        return found

    monkeypatch.setattr(CreateDisk, "inherit", deleting)
    await with_a.events(**{"from": "a"}, model="m")
    assert with_a.layers("m") == [("model", G, "a:latest")]
    assert [name.short for name, _ in with_a.store.manifests()] == ["m:latest"]


async def test_creates_of_one_name_come_one_after_the_other(
    with_a: Creator, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[str] = []
    most = 0
    lock = threading.Lock()
    original = CreateDisk.inherit

    def counted(self: CreateDisk, name: Name) -> object:
        nonlocal most
        with lock:
            running.append("create")
            most = max(most, len(running))
        return original(self, name)

    async def create(name: str, system: str) -> None:
        request = CreateRequest(model=name, from_="a", system=system)
        async with aclosing(create_events(with_a.store, request, locks=with_a.locks)) as events:
            async for event in events:
                await trio.testing.wait_all_tasks_blocked()
                if event.status == "success":
                    running.pop()

    monkeypatch.setattr(CreateDisk, "inherit", counted)
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(create, "m" if number % 2 else "M", f"text {number}")
    assert most == 1
    (model,) = [name for name, _ in with_a.store.manifests() if name.model.lower() == "m"]
    kept = [n for n in range(6) if with_a.store.has_blob(digest_of(f"text {n}".encode()))]
    assert with_a.texts(model.short) == [("system", f"text {kept[0]}".encode())]
    assert len(kept) == 1


async def test_creates_and_deletes_leave_whole_models_and_nothing_else(with_a: Creator) -> None:
    store: Store = with_a.store

    async def churn(number: int) -> None:
        for turn in range(4):
            name = f"m{(number + turn) % 3}"
            await with_a.events(
                **{"from": "a"}, model=name, system=f"s{turn % 2}", parameters={"seed": number % 2}
            )
            other = Name.parse(f"m{(number + turn + 1) % 3}")
            try:
                await trio.to_thread.run_sync(store.delete, other)
            except FileNotFoundError:
                continue  # not created yet, or deleted by another one

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(churn, number)
    referenced = set()
    for name, stored in store.manifests():
        for digest in stored.manifest.references():
            assert store.has_blob(digest), name
            referenced.add(store.blob_path(digest).name)
    assert with_a.blobs() == referenced
