"""What a client learns of its waiting, and how many it waits with: ``Server-Timing`` and
``GET /api/status``; models with a number of slots of their own."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.daemon import eventually
from support.stage import Stage, staged

PROMPT = {"model": "m", "prompt": "x", "raw": True, "options": {"num_predict": 3}}
MESSAGES = [{"role": "user", "content": "x"}]


@pytest.fixture(scope="module")
def one_slot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("waiting") / "home") as stage:
        stage.add("m")
        stage.add("vectors", "bert", bert__pooling_type=1)
        stage.create("wide", stage.home / "m.gguf", parameters={"num_parallel": 3})
        yield stage


@pytest.fixture
def stage(one_slot: Stage) -> Iterator[Stage]:
    yield one_slot
    one_slot.clear()


def timing(headers: dict[str, str]) -> tuple[float, float]:
    found = re.fullmatch(r"queue;dur=(\d+\.\d{3}), load;dur=(\d+\.\d{3})", headers["server-timing"])
    assert found is not None, headers
    return float(found[1]), float(found[2])


def queue(stage: Stage) -> tuple[int, int]:
    status = stage.get("/api/status")["queue"]
    return status["waiting"], status["running"]


@contextmanager
def asking(stage: Stage, **fields: Any) -> Iterator[list[dict[str, str]]]:
    """A request in a thread; its headers are in the list when the block has ended."""
    headers: list[dict[str, str]] = []

    def ask() -> None:
        status, got, data = stage.request("POST", "/api/generate", {**PROMPT, **fields})
        assert status == 200, data
        headers.append(got)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield headers
    finally:
        thread.join(20)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"model": "m"}),
        ("/api/generate", PROMPT),
        ("/api/generate", {**PROMPT, "stream": False}),
        ("/api/generate", {**PROMPT, "_debug_render_only": True}),
        ("/api/chat", {"model": "m", "messages": []}),
        ("/api/chat", {"model": "m", "messages": MESSAGES}),
        ("/api/chat", {"model": "m", "messages": MESSAGES, "stream": False}),
        ("/api/embed", {"model": "vectors", "input": "x"}),
        ("/api/embed", {"model": "vectors", "input": []}),
        ("/api/embeddings", {"model": "vectors", "prompt": "x"}),
    ],
)
def test_answers_tell_how_long_their_model_was_being_loaded(
    stage: Stage, path: str, body: dict[str, Any]
) -> None:
    for loads in (True, False):
        status, headers, data = stage.request("POST", path, body)
        assert status == 200, data
        assert (timing(headers)[1] > 0) is loads


def test_what_needs_no_runner_tells_nothing(stage: Stage) -> None:
    unload = {"model": "m", "keep_alive": 0}
    for path, body in (("/api/generate", unload), ("/api/generate", {**PROMPT, "model": "n"})):
        assert "server-timing" not in stage.request("POST", path, body)[1]
    assert "server-timing" not in stage.request("GET", "/api/ps")[1]


def test_a_request_that_waited_for_a_slot_says_so(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(hold=str(gate))
    with asking(stage) as first:
        eventually(lambda: queue(stage) == (0, 1), what="one runs")
        with asking(stage) as second:
            eventually(lambda: queue(stage) == (1, 1), what="one waits")
            gate.open()
    assert queue(stage) == (0, 0)
    assert timing(second[0])[0] > timing(first[0])[0]
    assert timing(second[0])[1] == 0


def test_a_model_with_slots_of_its_own(stage: Stage) -> None:
    shown = stage.post("/api/show", {"model": "wide"})
    assert "num_parallel                   3" in shown["parameters"]
    assert "PARAMETER num_parallel 3" in shown["modelfile"].splitlines()
    gate = stage.gate()
    stage.will(hold=str(gate))
    with asking(stage, model="wide"), asking(stage, model="wide"), asking(stage, model="wide"):
        eventually(lambda: queue(stage) == (0, 3), what="all three run")
        with asking(stage, model="wide"):
            eventually(lambda: queue(stage) == (1, 3), what="the fourth waits")
            gate.open()
    (start,) = stage.starts()
    assert (start.value("-np"), start.value("-c")) == ("3", "12288")
    assert stage.get("/api/ps")["models"][0]["context_length"] == 4096


def test_another_number_of_slots_reloads(stage: Stage) -> None:
    for slots in (None, 1, 2, None, 2, 3):
        stage.post("/api/generate", {"model": "m", "options": {"num_parallel": slots}})
    assert [start.value("-np") for start in stage.starts()] == ["1", "2", "3"]
    refused = stage.failure("/api/generate", {**PROMPT, "options": {"num_parallel": 65}})
    assert refused == (400, 'option "num_parallel" must be from 1 to 64')


def test_an_embedding_model_has_one_slot(stage: Stage) -> None:
    for slots in (4, None, 2):
        body = {"model": "vectors", "input": "x", "options": {"num_parallel": slots}}
        stage.post("/api/embed", body)
    assert [start.value("-np") for start in stage.starts()] == ["1"]
