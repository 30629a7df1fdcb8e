"""An answer that nobody reads any more: first the runner's slot is freed, then the lease is given
back, or the next request would wait for a slot that it was promised."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ollamad.inference import chat, generate
from ollamad.prompting.template import parse_template
from ollamad.scheduler.lease import Waited
from ollamad.scheduler.options import Options
from ollamad.timestamps import UtcClock
from ollamad.wire import ChatRequest, GenerateRequest, Message

COMPLETION = b'{"content":"a"}'
CHAT = b'{"choices":[{"delta":{"content":"a"}}]}'


class Stage:
    """A scheduler with one runner that never stops talking; ``order`` is what happened."""

    def __init__(self, payload: bytes) -> None:
        self.order: list[str] = []
        self._payload = payload

    @asynccontextmanager
    async def lease(self, spec: Any, keep_alive: Any = None) -> AsyncIterator[Any]:
        client = SimpleNamespace(stream=self.stream)
        runner = SimpleNamespace(client=client, media_marker="")
        try:
            yield SimpleNamespace(runner=runner, num_ctx=100, queued_ns=0, loaded_ns=0)
        finally:
            self.order.append("released")

    @asynccontextmanager
    async def stream(self, path: str, body: bytes) -> AsyncIterator[Any]:
        async def batches() -> AsyncIterator[list[bytes]]:
            while True:
                yield [self._payload]

        try:
            yield SimpleNamespace(batches=lambda what: batches())
        finally:
            self.order.append("slot free")


def answer(kind: str, services: Any) -> Any:
    model = SimpleNamespace(
        adds_bos=False,
        chat_template="",
        families=(),
        is_rendered=kind == "rendered chat",
        parser="",
        renderer="",
        stored=SimpleNamespace(projector_paths=()),
        template=parse_template("{{ .Prompt }}"),
        uses_harmony=False,
    )
    common = (model, SimpleNamespace(context_shift=True, num_keep=4))
    options = Options(num_ctx=100)
    if kind.endswith("chat"):
        messages = [Message(role="user", content="hi")]
        run: Any = chat._Run(
            services,
            ChatRequest(model="m"),
            *common,
            options,
            messages,
            None,
            0,
            Waited(),  # type: ignore[arg-type]
        )
    else:
        request = GenerateRequest(model="m", prompt="hi", raw=True)
        run = generate._Run(services, request, *common, options, None, 0, Waited())  # type: ignore[arg-type]
    return run.events()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [("chat", CHAT), ("rendered chat", COMPLETION), ("generate", COMPLETION)],
)
async def test_the_slot_is_free_before_the_lease_is_given_back(kind: str, payload: bytes) -> None:
    stage = Stage(payload)
    events = answer(kind, SimpleNamespace(scheduler=stage, clock=UtcClock()))
    assert await anext(events) == []
    assert len(await anext(events)) == 1
    await events.aclose()
    assert stage.order == ["slot free", "released"]
