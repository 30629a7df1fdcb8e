"""What clients do, decided by a seed: the same numbers give the same scenes on any machine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: Names of the models, by what they can.
TALKER, BABBLER, FINDER = "talker", "babbler", "finder"
WRITERS = (TALKER, BABBLER)
KEEP_ALIVES = (None, None, None, 0, "50ms", "1s", "5s", "5m", -1)
CONTEXTS = (None, None, None, 1024, 4096)
WORDS = ("the", "whale", "swims", "under", "a", "green", "moon", "and", "counts", "seven", "slow")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One request. ``manner``: ``read`` to the end, ``leave`` after ``after`` seconds, ``leave
    midway`` after ``after`` pieces of the answer, ``dawdle`` over each piece, or ``stammer``: send
    a part of the body and vanish. ``abrupt``: leave with a reset."""

    kind: str
    method: str
    path: str
    body: Any = None
    manner: str = "read"
    after: float = 0.0
    abrupt: bool = False

    @property
    def leaves(self) -> bool:
        return self.manner in ("leave", "leave midway", "stammer")


def scenes(seed: int, client: int) -> Iterator[Scene]:
    """What one client does, without end."""
    chance = random.Random(f"{seed} client {client}")
    while True:
        yield _manner(chance, _request(chance))


def _request(chance: random.Random) -> Scene:
    kind = chance.choices(
        ("generate", "chat", "embed", "load", "unload", "manage", "wrong", "look"),
        (24, 24, 18, 7, 5, 5, 6, 11),
    )[0]
    text = " ".join(chance.choices(WORDS, k=chance.choice((1, 5, 20, 120))))
    writer = chance.choice(WRITERS)
    stream = chance.random() < 0.6
    common: dict[str, Any] = {"model": writer, "stream": stream, **_keep_alive(chance)}
    if kind == "generate":
        body = {**common, "prompt": text, "options": _options(chance)}
        return Scene(kind=kind, method="POST", path="/api/generate", body=body)
    if kind == "chat":
        messages = [{"role": "user", "content": text}]
        body = {**common, "messages": messages, "options": _options(chance)}
        return Scene(kind=kind, method="POST", path="/api/chat", body=body)
    if kind == "embed":
        inputs = [text[:200]] * chance.choice((1, 3, 20))
        body = {"model": FINDER, "input": inputs, **_keep_alive(chance)}
        return Scene(kind=kind, method="POST", path="/api/embed", body=body)
    if kind == "load":
        body = {"model": writer, "options": {"num_ctx": chance.choice((1024, 2048))}}
        return Scene(
            kind=kind, method="POST", path="/api/generate", body={**body, **_keep_alive(chance)}
        )
    if kind == "unload":
        body = {"model": chance.choice((*WRITERS, FINDER)), "keep_alive": 0}
        return Scene(kind=kind, method="POST", path="/api/generate", body=body)
    if kind == "manage":
        return _manage(chance)
    if kind == "wrong":
        return _wrong(chance)
    return Scene(
        kind=kind,
        method="GET",
        path=chance.choice(("/api/ps", "/api/tags", "/api/status", "/api/version")),
    )


def _options(chance: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"num_predict": chance.choice((1, 4, 12, 40)), "temperature": 0}
    if (num_ctx := chance.choice(CONTEXTS)) is not None:
        options["num_ctx"] = num_ctx
    if chance.random() < 0.1:
        options["num_gpu"] = 0
    return options


def _keep_alive(chance: random.Random) -> dict[str, Any]:
    value = chance.choice(KEEP_ALIVES)
    return {} if value is None else {"keep_alive": value}


def _manage(chance: random.Random) -> Scene:
    """Models under other names come and go; their weights are those of the ones that serve."""
    name = f"copy-{chance.randrange(3)}"
    if chance.random() < 0.4:
        return Scene(kind="manage", method="DELETE", path="/api/delete", body={"model": name})
    if chance.random() < 0.5:
        body = {"source": chance.choice(WRITERS), "destination": name}
        return Scene(kind="manage", method="POST", path="/api/copy", body=body)
    body = {"model": name, "from": TALKER, "system": name, "stream": False}
    return Scene(kind="manage", method="POST", path="/api/create", body=body)


def _wrong(chance: random.Random) -> Scene:
    path, body = chance.choice(
        (
            ("/api/chat", {"model": FINDER, "messages": [{"role": "user", "content": "hi"}]}),
            ("/api/generate", {"model": "nobody", "prompt": "hi"}),
            ("/api/generate", {"model": TALKER, "prompt": "hi", "options": {"num_ctx": "x"}}),
            ("/api/generate", {"model": TALKER, "prompt": "hi", "keep_alive": "soon"}),
            ("/api/chat", {"model": f"copy-{chance.randrange(3)}", "messages": [], "stream": True}),
            ("/api/chat", "not an object"),
        )
    )
    return Scene(kind="wrong", method="POST", path=path, body=body)


def _manner(chance: random.Random, scene: Scene) -> Scene:
    if scene.kind in ("manage", "wrong", "look"):
        return scene
    manner = chance.choices(
        ("read", "leave", "leave midway", "dawdle", "stammer"), (70, 11, 11, 4, 4)
    )[0]
    after = 0.0
    if manner == "leave":
        after = chance.choice((0.0, 0.01, 0.1, 0.5, 2.0))
    elif manner == "leave midway":
        after = float(chance.randint(1, 6))
    return Scene(
        kind=scene.kind,
        method=scene.method,
        path=scene.path,
        body=scene.body,
        manner=manner,
        after=after,
        abrupt=chance.random() < 0.3,
    )
