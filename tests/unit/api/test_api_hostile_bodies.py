"""Bodies that are made to cost: they may take their time, but not the memory or the event loop."""

from __future__ import annotations

import threading
import time
import tracemalloc
from typing import Any

import pytest
import trio

from ollamad.api import context as context_module
from ollamad.api.base64_text import base64_bytes
from ollamad.api.context import Context, Incoming
from ollamad.api.decoding import decode
from ollamad.errors import BadRequest, OllamadError
from ollamad.wire import GenerateRequest

MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("AAAA=" + "A" * 8 * MEGABYTE + "!", 4),
        ("AA=" + "A" * 8 * MEGABYTE, 2),
        ("A" * 8 * MEGABYTE + "!", 8 * MEGABYTE),
        ("AAA" + "\n" * 8 * MEGABYTE + "AA", 4 + 8 * MEGABYTE),
        ("AAAA" + "\n" * 8 * MEGABYTE + "A", 4),
    ],
)
def test_wrong_base64_costs_little_memory(text: str, offset: int) -> None:
    tracemalloc.start()
    with pytest.raises(BadRequest, match=f"at input byte {offset}$"):
        base64_bytes(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(text)


def test_a_string_of_escapes_before_what_is_nested_deep() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    body = b'{"model":"m","x":"' + b'\\"' * MEGABYTE + b'","y":' + deep + b"}"
    assert decode(GenerateRequest, body).model == "m"


async def test_few_large_bodies_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    present = most = 0

    def slow(_type: Any, _body: bytes) -> None:
        nonlocal present, most
        with lock:
            present += 1
            most = max(most, present)
        time.sleep(0.02)
        with lock:
            present -= 1

    monkeypatch.setattr(context_module, "decode", slow)
    body = b" " * (MEGABYTE + 1)

    async def one() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        services: Any = None
        incoming = Incoming(receive, complete=False)
        await Context(services, {"headers": []}, incoming, {}, "id").decode(GenerateRequest)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)
    assert most == 2


async def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_module, "_LARGEST_BODY", 10 * MEGABYTE)
    pieces = 0

    async def receive() -> Any:
        nonlocal pieces
        pieces += 1
        return {"type": "http.request", "body": bytes(MEGABYTE), "more_body": True}

    services: Any = None
    context = Context(services, {"headers": []}, Incoming(receive, complete=False), {}, "id")
    with pytest.raises(OllamadError, match="http: request body too large") as caught:
        await context.body()
    assert caught.value.status == 413
    assert pieces == 11
