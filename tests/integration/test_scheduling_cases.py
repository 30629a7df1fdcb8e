"""Which runner a request gets, who waits, who is turned away, and what is unloaded when: the
contract's cases, on a running daemon (runners-and-scheduling.md 4, 8.7)."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from support.daemon import eventually
from support.stage import Stage, staged

BUSY = "server busy, please try again.  maximum pending requests exceeded"
#: Nobody's keep-alive ends during a test unless it says so.
HOUR = {"keep_alive": "1h"}


class Asking:
    """A generate request that has been sent; its answer is read when the test wants it."""

    def __init__(self, stage: Stage, model: str, **fields: Any) -> None:
        body = {"model": model, "prompt": "x", "raw": True, "options": {"num_predict": 3}}
        self._connection = HTTPConnection("127.0.0.1", stage.port, timeout=20)
        self._connection.request("POST", "/api/generate", json.dumps({**body, **fields}).encode())
        self._response: HTTPResponse | None = None

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._connection.close()

    @property
    def response(self) -> HTTPResponse:
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def answered(self) -> bool:
        """Whether there is something to read."""
        sock = self._connection.sock
        return self._response is not None or bool(select.select([sock], [], [], 0)[0])

    def begun(self) -> Asking:
        """Wait for the first token."""
        assert self.response.status == 200
        assert json.loads(self.response.readline())["response"]
        return self

    def end(self) -> dict[str, Any]:
        """The last object of the answer, or the error instead of one."""
        lines = [json.loads(line) for line in self.response]
        last: dict[str, Any] = lines[-1]
        return last

    def error(self) -> tuple[int, str]:
        return self.response.status, self.end()["error"]


def one_waits(stage: Stage, model: str, count: int = 2) -> Asking:
    """The one of ``count`` requests that waits: that the others are turned away shows it does.

    There must be room for one.
    """
    requests = [Asking(stage, model) for _ in range(count)]
    waiting = set(requests)

    def others_answered() -> bool:
        waiting.difference_update([r for r in waiting if r.answered()])
        return len(waiting) <= 1

    eventually(others_answered, what="all but one are answered")
    for request in requests:
        if request not in waiting:
            assert request.error() == (503, BUSY)
            assert int(request.response.headers["Retry-After"]) >= 1
            request.leave()
    (one,) = waiting
    return one


def leaves(stage: Stage, request: Asking) -> None:
    """The client goes away, and the daemon has seen it."""
    before = stage.log.count("status=499")
    request.leave()
    eventually(lambda: stage.log.count("status=499") > before, what="its leaving is seen")


def load(stage: Stage, model: str, options: Any = None, **fields: Any) -> None:
    body = {"model": model, "options": options or {}, **fields}
    assert stage.post("/api/generate", body)["done_reason"] == "load"


def unload(stage: Stage, model: str) -> None:
    answer = stage.post("/api/generate", {"model": model, "keep_alive": 0})
    assert answer["done_reason"] == "unload"


def expires_in(stage: Stage, model: str) -> float:
    """Seconds until ``model`` is unloaded; at most 0 when it is about to be."""
    (shown,) = [m for m in stage.get("/api/ps")["models"] if m["name"] == f"{model}:latest"]
    return datetime.fromisoformat(shown["expires_at"]).timestamp() - time.time()


def gone(stage: Stage, model: str, limit: float = 10) -> None:
    eventually(lambda: model not in stage.loaded(), limit, f"{model} is unloaded")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Room for two models, one slot each, and one request that waits."""
    home = tmp_path_factory.mktemp("small") / "home"
    with staged(home, OLLAMA_MAX_LOADED_MODELS="2", OLLAMA_MAX_QUEUE="1") as stage:
        for name in "abcd":
            stage.add(name)
        stage.add("short", llama__context_length=2048)
        stage.create("a-again", stage.home / "a.gguf")
        stage.create("a-small", stage.home / "a.gguf", parameters={"num_ctx": 1024})
        stage.compose("adapted", stage.home / "a.gguf", adapters=stage.adapter())
        yield stage


@pytest.fixture
def stage(small: Stage) -> Iterator[Stage]:
    yield small
    small.clear()


# --- what reloads (4.4) ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "first", "second", "reloads"),
    [
        ("a", {}, {"num_ctx": 4096, "num_batch": 512, "use_mmap": False, "temperature": 1}, False),
        ("a", {}, {"num_ctx": None}, False),
        ("a", {}, {"num_keep": 9}, False),
        ("a", {}, {"draft_num_predict": 0}, False),
        ("a", {"num_ctx": 2048}, {}, True),
        ("a", {"num_ctx": 100000}, {"num_ctx": 8192}, False),
        ("a", {"num_ctx": 100000}, {"num_ctx": 9000}, False),
        ("short", {"num_ctx": 2048}, {"num_ctx": 262144}, False),
        ("short", {"num_ctx": 2048}, {"num_ctx": 1024}, True),
        ("short", {}, {"num_ctx": 4096}, False),
        ("a", {"num_gpu": 5}, {}, False),
        ("a", {"num_gpu": 5}, {"num_gpu": -1}, False),
        ("a", {"num_gpu": 5}, {"num_gpu": 99}, True),
        ("a", {"use_mmap": False}, {}, True),
        ("a", {}, {"use_mmap": True}, True),
    ],
)  # fmt: skip
def test_reloading_for_options(
    stage: Stage, model: str, first: dict[str, Any], second: dict[str, Any], reloads: bool
) -> None:
    load(stage, model, first)
    load(stage, model, second)
    assert len(stage.starts()) == 1 + reloads
    assert stage.loaded() == [model]


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"num_batch": 300}},
        {"options": {"num_thread": 2}},
        {"options": {"draft_num_predict": 4}},
        {"options": {"main_gpu": 0}},
        {"options": {"num_ctx": 512}},
        {"shift": False},
        {"model": "a-small"},
        {"model": "adapted"},
    ],
    ids=str,
)
def test_reloading_there_and_back(stage: Stage, change: dict[str, Any]) -> None:
    for number, body in enumerate([{}, change, {}], start=1):
        stage.post("/api/generate", {"model": "a", **body})
        assert len(stage.starts()) == number
        assert stage.loaded() == [body.get("model", "a")]
    eventually(lambda: len(stage.runners()) == 1, what="the earlier ones have gone")


def test_two_names_for_the_same_weights_share_a_runner(stage: Stage) -> None:
    load(stage, "a")
    load(stage, "a-again")
    assert stage.loaded() == ["a"]
    assert len(stage.starts()) == 1


def test_a_request_that_needs_other_options_is_not_overtaken(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(hold=str(gate))
    options = {"num_ctx": 512, "num_predict": 3}
    with Asking(stage, "a").begun() as first, Asking(stage, "a", options=options) as other:
        eventually(lambda: expires_in(stage, "a") <= 0, what="the runner is to be unloaded")
        # This one would fit the runner that is there, but came later.
        with one_waits(stage, "a") as late:
            gate.open()
            assert first.end()["done"]
            assert other.end()["done"]
            assert late.end()["done"]
    assert [start.value("-c") for start in stage.starts()] == ["4096", "512", "4096"]


# --- keep-alive (4.10, 4.12) ----------------------------------------------------------------------


def test_keep_alive_sticks(stage: Stage) -> None:
    load(stage, "a")
    assert 290 < expires_in(stage, "a") <= 300
    load(stage, "a", keep_alive="1h")
    assert 3590 < expires_in(stage, "a") <= 3600
    with Asking(stage, "a") as request:
        request.end()
    assert 3590 < expires_in(stage, "a") <= 3600
    load(stage, "a", keep_alive=-1)
    assert expires_in(stage, "a") > 200 * 365 * 86400
    load(stage, "a", keep_alive=42.5)
    assert 40 < expires_in(stage, "a") <= 42.5


def test_keep_alive_ends(stage: Stage) -> None:
    load(stage, "b")
    load(stage, "a", keep_alive="200ms")
    gone(stage, "a", 3)
    assert stage.loaded() == ["b"]
    eventually(lambda: len(stage.runners()) == 1, what="its runner ends")


def test_keep_alive_does_not_end_while_a_request_runs(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(hold=str(gate))
    with Asking(stage, "a", keep_alive="1ms").begun() as request:
        assert stage.loaded() == ["a"]
        gate.open()
        assert request.end()["done"]
    gone(stage, "a", 3)


def test_a_keep_alive_of_zero_unloads_after_the_answer(stage: Stage) -> None:
    with Asking(stage, "a", keep_alive=0) as request:
        assert request.end()["done"]
    gone(stage, "a", 3)
    with Asking(stage, "a") as request:
        assert request.end()["done"]
    assert len(stage.starts()) == 2
    assert expires_in(stage, "a") > 290, "the new runner knows nothing of the other's end"


@pytest.mark.parametrize(
    ("path", "empty"),
    [("/api/generate", {"response": ""}),
     ("/api/chat", {"message": {"role": "assistant", "content": ""}})],
)  # fmt: skip
def test_unloading(stage: Stage, path: str, empty: dict[str, Any]) -> None:
    body = {"model": "a", "keep_alive": 0}
    for _ in range(2):  # also when it is not loaded
        answer = stage.post(path, body)
        del answer["created_at"]
        assert answer == {"model": "a", "done": True, "done_reason": "unload", **empty}
        gone(stage, "a", 3)
        if not stage.starts():
            load(stage, "a", **HOUR)
    assert stage.failure(path, {**body, "model": "nope"}) == (404, "model 'nope' not found")


def test_unloading_while_a_request_runs(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(hold=str(gate))
    with Asking(stage, "a").begun() as request:
        unload(stage, "a")
        assert stage.loaded() == ["a"]
        assert expires_in(stage, "a") <= 0
        gate.open()
        assert request.end()["done"]
    gone(stage, "a", 3)


def test_unloading_what_is_being_loaded(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(ready_when=str(gate))
    with Asking(stage, "a") as request:
        eventually(stage.starts, what="the load has begun")
        assert stage.loaded() == [], "what is not loaded yet is not shown"
        unload(stage, "a")
        gate.open()
        assert request.end()["done"], "who asked before is served"
    gone(stage, "a", 3)


@pytest.mark.parametrize(("value", "stays"), [("0", False), ("-1", True), ("100ms", False)])
def test_the_default_keep_alive(tmp_path: Path, value: str, stays: bool) -> None:
    with staged(tmp_path / "h", OLLAMA_KEEP_ALIVE=value) as stage:
        stage.add("a")
        load(stage, "a")
        if stays:
            assert expires_in(stage, "a") > 200 * 365 * 86400
        else:
            gone(stage, "a", 3)


def test_a_deleted_model_is_unloaded(stage: Stage) -> None:
    stage.add("fleeting")
    load(stage, "fleeting", **HOUR)
    assert stage.request("DELETE", "/api/delete", {"model": "fleeting"})[0] == 200
    gone(stage, "fleeting", 3)


# --- how many are loaded, and which goes (4.5, 4.9) -----------------------------------------------


def test_the_one_with_the_shortest_keep_alive_goes(stage: Stage) -> None:
    load(stage, "a", keep_alive="1h")
    load(stage, "b", keep_alive="2m")
    load(stage, "c")
    assert sorted(stage.loaded()) == ["a", "c"]
    load(stage, "d")
    assert sorted(stage.loaded()) == ["a", "d"]
    eventually(lambda: len(stage.runners()) == 2, what="the others have gone")


def test_an_idle_one_goes_before_a_busy_one(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(only={stage.blob("a").name: {"hold": str(gate)}})
    with Asking(stage, "a", keep_alive="1m").begun() as request:
        load(stage, "b", keep_alive=-1)
        load(stage, "c")
        assert sorted(stage.loaded()) == ["a", "c"]
        gate.open()
        assert request.end()["done"]


def test_a_busy_one_is_waited_for(stage: Stage) -> None:
    gates = {"a": stage.gate(), "b": stage.gate()}
    stage.will(only={stage.blob(name).name: {"hold": str(gate)} for name, gate in gates.items()})
    with (
        Asking(stage, "a", keep_alive="1m").begun() as first,
        Asking(stage, "b", **HOUR).begun() as second,
        Asking(stage, "c") as third,
    ):
        eventually(lambda: expires_in(stage, "a") <= 0, what="the first is to make room")
        assert expires_in(stage, "b") > 0
        gates["a"].open()
        assert first.end()["done"]
        assert third.end()["done"]
        assert sorted(stage.loaded()) == ["b", "c"]
        gates["b"].open()
        assert second.end()["done"]


def test_three_are_loaded_when_nobody_says_how_many(tmp_path: Path) -> None:
    with staged(tmp_path / "h") as stage:
        for name in "abcd":
            stage.add(name)
            load(stage, name)
        assert sorted(stage.loaded()) == ["b", "c", "d"]


# --- who waits, and who is turned away (4.3, 4.6) -------------------------------------------------


def test_requests_beyond_the_queue_while_a_model_loads(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(ready_when=str(gate))
    with Asking(stage, "a") as first:
        eventually(stage.starts, what="the load has begun")
        with one_waits(stage, "a", 5) as second:
            gate.open()
            assert first.end()["done"]
            assert second.end()["done"]
    assert len(stage.starts()) == 1


def test_requests_beyond_the_queue_while_the_slot_is_taken(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(hold=str(gate))
    with Asking(stage, "a").begun() as first, one_waits(stage, "a", 5) as second:
        assert len(stage.requests("/completion")) == 1
        # Who needs no slot does not wait for one.
        load(stage, "a")
        gate.open()
        assert first.end()["done"]
        assert second.end()["done"]


def test_a_client_that_waits_and_leaves_makes_place(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(hold=str(gate))
    with Asking(stage, "a").begun():
        for _ in range(3):
            leaves(stage, one_waits(stage, "a"))


def test_a_loaded_model_answers_while_another_loads(stage: Stage) -> None:
    load(stage, "a")
    gate = stage.gate()
    stage.will(only={stage.blob("b").name: {"ready_when": str(gate)}})
    with Asking(stage, "b") as slow:
        eventually(lambda: len(stage.starts()) == 2, what="the load has begun")
        with Asking(stage, "c") as queued:
            with Asking(stage, "a") as quick:
                assert quick.end()["done"]
            assert stage.loaded() == ["a"]
            gate.open()
            assert slow.end()["done"]
            assert queued.end()["done"]


def test_a_client_that_leaves_ends_its_load(stage: Stage) -> None:
    stage.will(ready_when=str(stage.gate()))
    with Asking(stage, "a") as request:
        eventually(lambda: len(stage.family()) == 2, what="the load has begun")
        leaves(stage, request)
    eventually(lambda: stage.family() == [], what="the load is given up")
    assert stage.loaded() == []


def test_a_load_goes_on_for_those_who_stay(stage: Stage) -> None:
    gate = stage.gate()
    stage.will(ready_when=str(gate))
    first = Asking(stage, "a")
    eventually(stage.starts, what="the load has begun")
    with one_waits(stage, "a") as second:
        leaves(stage, first)
        gate.open()
        assert second.end()["done"]
    assert len(stage.starts()) == 1


def test_a_failed_load_fails_only_those_who_asked_for_it(stage: Stage) -> None:
    stage.will(only={stage.blob("a").name: {"ready_when": str(stage.gate())}})
    with Asking(stage, "a") as first:
        eventually(stage.starts, what="the load has begun")
        with one_waits(stage, "b") as second:
            os.kill(stage.starts()[0].pid, signal.SIGKILL)
            text = "llama-server process has terminated: signal: killed"
            assert first.error() == (500, text)
            assert second.end()["done"]
    assert stage.loaded() == ["b"]


def test_a_failed_load_is_tried_again_for_the_next(stage: Stage) -> None:
    stage.will(launches=[{"exit": 1}, {}])
    with Asking(stage, "a") as first:
        assert first.error()[0] == 500
    with Asking(stage, "a") as second:
        assert second.end()["done"]


def test_parallel_slots(tmp_path: Path) -> None:
    with staged(tmp_path / "h", OLLAMA_NUM_PARALLEL="2", OLLAMA_MAX_QUEUE="0") as stage:
        stage.add("a")
        gate = stage.gate()
        stage.will(hold=str(gate))
        with Asking(stage, "a").begun() as first, Asking(stage, "a").begun() as second:
            with Asking(stage, "a") as third:
                assert third.error() == (503, BUSY)
            second.leave()
            eventually(
                lambda: [e for e in stage.events() if e["event"] == "left"],
                what="the runner sees that a client left",
            )
            with Asking(stage, "a").begun() as fourth:
                gate.open()
                assert first.end()["done"]
                assert fourth.end()["done"]
        assert len(stage.starts()) == 1


# --- memory (4.6, 4.13) ---------------------------------------------------------------------------

OUT_OF_MEMORY = "cudaMalloc failed: out of memory"
FAILED = f"llama-server process has terminated: exit status 1: {OUT_OF_MEMORY}"
NO_MEMORY = {"exit": 1, "log": [OUT_OF_MEMORY]}


def test_a_model_that_no_memory_holds_is_refused(stage: Stage) -> None:
    shape = {"block_count": 100, "embedding_length": 65536, "attention__head_count": 64}
    keys = {f"llama__{key}": value for key, value in shape.items()}
    stage.add("huge", llama__context_length=10_000_000, **keys)
    load(stage, "a")
    options = {"num_ctx": 10_000_000}
    status, text = stage.failure("/api/generate", {"model": "huge", "options": options})
    assert status == 500
    words = r"model requires more system memory \(\d+\.\d GiB\) than is available \(\d+\.\d GiB\)"
    assert re.fullmatch(words, text)
    assert len(stage.starts()) == 1, "nothing was started for it"
    assert stage.loaded() == ["a"], "and nothing unloaded"
    # Mapped weights are the user's own risk.
    load(stage, "huge", {**options, "use_mmap": True})
    assert sorted(stage.loaded()) == ["a", "huge"]


def test_a_load_without_memory_is_tried_again_alone(stage: Stage) -> None:
    load(stage, "a")
    stage.will(launches=[NO_MEMORY, {}])
    load(stage, "b")
    assert stage.loaded() == ["b"]
    assert [start.value("-c") for start in stage.starts()] == ["4096"] * 3


def test_a_load_without_memory_is_tried_again_once(stage: Stage) -> None:
    load(stage, "a")
    stage.will(**NO_MEMORY)
    assert stage.failure("/api/generate", {"model": "b"}) == (500, FAILED)
    assert len(stage.starts()) == 3
    assert stage.loaded() == []


def test_a_load_without_memory_is_not_tried_again_where_nothing_can_go(stage: Stage) -> None:
    stage.will(**NO_MEMORY)
    assert stage.failure("/api/generate", {"model": "b"}) == (500, FAILED)
    assert len(stage.starts()) == 1


def test_other_failures_unload_nobody(stage: Stage) -> None:
    load(stage, "a")
    stage.will(exit=1)
    assert stage.failure("/api/generate", {"model": "b"})[0] == 500
    assert stage.loaded() == ["a"]
    assert len(stage.starts()) == 2


def test_memory_that_runs_out_while_answering_unloads_all(stage: Stage) -> None:
    load(stage, "a")
    load(stage, "b")
    stage.will(answers={"/completion": [500, "ggml: failed to allocate buffer of size 1"]})
    with Asking(stage, "a") as request:
        assert request.error() == (500, "ggml: failed to allocate buffer of size 1")
    eventually(lambda: stage.loaded() == [], what="all are unloaded")


# --- ends that nobody asked for (4.16) ------------------------------------------------------------


def test_a_runner_that_dies_is_forgotten_at_once(stage: Stage) -> None:
    load(stage, "a", **HOUR)
    load(stage, "b", **HOUR)
    os.kill(stage.starts()[0].pid, signal.SIGKILL)
    gone(stage, "a", 2)
    assert stage.loaded() == ["b"]
    load(stage, "a")
    assert len(stage.starts()) == 3


def test_a_daemon_that_stops_while_it_loads(tmp_path: Path) -> None:
    with staged(tmp_path / "h") as stage:
        stage.add("a")
        stage.will(ready_when=str(stage.gate()))
        with Asking(stage, "a") as request:
            eventually(lambda: len(stage.starts()) == 1, what="the load has begun")
            stage.signal(signal.SIGTERM)
            assert request.error() == (503, "server is shutting down")
        assert stage.wait(5) == 0
