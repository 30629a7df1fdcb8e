"""A bad day in small; ``python -m chaos`` makes it as long as one likes (tests/chaos/README.md)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from chaos import clients, remains, stage
from chaos.daemon import BROKEN, LAST
from chaos.scenes import FINDER, TALKER, Scene, scenes


@pytest.mark.parametrize(("scripted", "seconds"), [(False, 20), (True, 10)])
def test_nothing_is_lost_and_nothing_is_left(scripted: bool, seconds: float) -> None:
    found = stage.run(seed=6, seconds=seconds, scripted=scripted)
    assert found.complaints() == [], f"{found.text()}\n{found.log[-20_000:]}"
    outcomes = {result.outcome for result in found.results}
    assert {"answered", "error", "left"} <= outcomes, found.text()
    assert found.faults.total() > 2, found.text()


def test_a_seed_always_says_the_same() -> None:
    def some(seed: int, client: int) -> list[Scene]:
        return [scene for scene, _ in zip(scenes(seed, client), range(300), strict=False)]

    assert some(1, 0) == some(1, 0)
    assert some(1, 0) != some(1, 1)
    assert some(1, 0) != some(2, 0)
    kinds = {scene.kind for scene in some(1, 0)}
    assert kinds == {"generate", "chat", "embed", "load", "unload", "manage", "wrong", "look"}
    manners = {scene.manner for scene in some(1, 0)}
    assert manners == {"read", "leave", "leave midway", "dawdle", "stammer"}


# --- would it notice? -----------------------------------------------------------------------------

CHAT = Scene(kind="chat", method="POST", path="/api/chat", body={"model": TALKER})
EMBED = Scene(kind="embed", method="POST", path="/api/embed", body={"model": FINDER, "input": "ab"})
WRONG = Scene(kind="wrong", method="POST", path="/api/chat", body={"model": FINDER})

BUSY = "server busy, please try again.  maximum pending requests exceeded"
BROKE_OFF = "an error was encountered while running the model: unexpected EOF"


def judged(scene: Scene, status: int, *events: Any, cut: bool = False, **headers: str) -> Any:
    """The result for an answer of these events."""
    answer = clients._Answer(status, complete=not cut)
    answer.headers = {"content-type": "application/x-ndjson", **headers}
    answer.body += b"\n".join(json.dumps(event).encode() for event in events)
    result = clients.Result(scene)
    clients._judge(result, answer)
    return result


@pytest.mark.parametrize(
    ("scene", "status", "events"),
    [
        (CHAT, 200, [{"message": {}, "done": True, "done_reason": "stop"}]),
        (CHAT, 200, [{"message": {}}, {"done": True, "done_reason": "length"}]),
        (CHAT, 404, [{"error": "model 'nobody' not found"}]),
        (CHAT, 200, [{"message": {}}, {"error": BROKE_OFF}]),
        (EMBED, 200, [{"embeddings": [[1, 2], [3, 4]]}]),
        (WRONG, 400, [{"error": '"finder" does not support chat'}]),
    ],
)  # fmt: skip
def test_what_is_well_is_no_complaint(scene: Scene, status: int, events: list[Any]) -> None:
    assert judged(scene, status, *events).complaint == ""


@pytest.mark.parametrize(
    ("scene", "status", "events", "complaint"),
    [
        (CHAT, 200, [{"message": {}}], "not the last"),
        (CHAT, 200, [], "not the last"),
        (CHAT, 200, [{"done": True, "done_reason": "load"}], "an odd end"),
        (CHAT, 500, [{"done": True}], "without an error"),
        (CHAT, 500, [{"error": ""}], "obscure"),
        (CHAT, 500, [{"error": "KeyError('x')"}], "obscure"),
        (CHAT, 500, [{"error": "something else"}], "unknown"),
        (CHAT, 503, [{"error": BUSY}], "how long"),
        (EMBED, 200, [{"embeddings": [[1, 2]]}], "2 inputs"),
        (EMBED, 200, [{"embeddings": [[1, 2], [3]]}], "2 inputs"),
        (WRONG, 200, [{"done": True, "done_reason": "stop"}], "should have failed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one(scene: Scene, status: int, events: list[Any], complaint: str) -> None:
    assert complaint in judged(scene, status, *events).complaint


def test_an_answer_that_is_cut_is_one() -> None:
    assert "in the middle" in judged(CHAT, 200, {"message": {}}, cut=True).complaint


def test_the_log_is_read() -> None:
    end = f"{LAST}events=9 waiting=0 leases=0 runners=0"
    assert remains.in_the_log(f"a\n{end}\n") == []
    assert remains.in_the_log(f"{BROKEN}after tick (3): two loads\n{end}") == [
        f"{BROKEN}after tick (3): two loads"
    ]
    assert "traceback" in remains.in_the_log(f"Traceback (most recent call last):\n{end}")[0]
    assert remains.in_the_log(end.replace("leases=0", "leases=1")) != []
    assert remains.in_the_log(end.replace("events=9", "events=0")) != []
    assert remains.in_the_log("nothing of it") != []


def test_files_that_stay_are_found(tmp_path: Path) -> None:
    blobs = tmp_path / "models/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"sha256-{'0' * 64}").touch()
    (tmp_path / "ollamad-0-x").mkdir()
    (tmp_path / "ollamad-0-x/lock").touch()
    assert remains._odd_blobs(tmp_path / "models") == remains._run_files(tmp_path) == []
    (blobs / f"sha256-{'0' * 64}-partial").touch()
    (tmp_path / "ollamad-0-x/a.sock").touch()
    assert len(remains._odd_blobs(tmp_path / "models")) == 1
    assert remains._run_files(tmp_path) == ["ollamad-0-x/a.sock"]


def test_who_gets_no_answer_is_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        result = trio.run(clients.ask, port, CHAT, 0.05)
    assert result.outcome == "late"
    assert "no end" in result.complaint
