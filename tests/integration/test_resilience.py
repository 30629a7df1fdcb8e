"""What must never happen: hangs, orphans, lies. Real runners are killed, clients vanish, queues
overflow (issue: "Must show"; runners-and-scheduling.md 2.13, 4.3, 4.16; http-api.md 18)."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from support.daemon import Daemon, eventually
from support.models import smollm2

MakeDaemon = Callable[..., Daemon]
LONG = {"temperature": 0, "num_predict": 2000, "num_ctx": 2048}
STORY = "Tell me a very long story about a whale."


def runner_processes(daemon: Daemon) -> list[psutil.Process]:
    """The runners themselves: the daemon's children are the shims that watch over them."""
    assert daemon.process is not None
    return [p for p in daemon.family() if p.ppid() != daemon.process.pid]


def chat_body(model: str = "smollm2", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": STORY}], **fields}


@pytest.mark.parametrize("parallel", ["1", "2"])
def test_sixty_four_clients_two_models(make_daemon: MakeDaemon, parallel: str) -> None:
    daemon = make_daemon(OLLAMA_MAX_QUEUE="32", OLLAMA_NUM_PARALLEL=parallel)
    daemon.create("a", smollm2())
    # Two blobs, so that both can be loaded at once.
    other = daemon.home / "other.gguf"
    other.write_bytes(smollm2().read_bytes() + bytes(32))
    daemon.create("b", other)
    # Threads of two runners that wait for each other on the same cores take minutes.
    one_thread = {"num_thread": 1}
    for model in ("a", "b"):
        daemon.post("/api/generate", {"model": model, "keep_alive": "10m", "options": one_thread})
    before = {p.pid for p in daemon.family()}

    def ask(number: int) -> tuple[int, Any, str | None]:
        body = chat_body("ab"[number % 2], stream=False, options={"num_predict": 6, **one_thread})
        status, headers, data = daemon.request("POST", "/api/chat", body)
        return status, json.loads(data), headers.get("retry-after")

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(64)))
    served = [a for status, a, _ in answers if status == 200]
    busy = [(a, retry) for status, a, retry in answers if status == 503]
    assert len(served) + len(busy) == 64
    assert len(served) >= 32
    assert all(a["done"] and 0 < a["eval_count"] <= 6 for a in served)
    assert all(
        a == {"error": "server busy, please try again.  maximum pending requests exceeded"}
        and int(retry) >= 1
        for a, retry in busy
        if retry is not None
    )
    assert all(retry is not None for _, retry in busy)
    assert sorted(m["name"] for m in daemon.get("/api/ps")["models"]) == ["a:latest", "b:latest"]
    assert {p.pid for p in daemon.family()} == before


def test_a_runner_killed_in_mid_stream(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.create("smollm2", smollm2())
    events = daemon.stream("/api/chat", chat_body(options=LONG))
    first = next(events)
    assert first["message"]["content"]
    (runner,) = runner_processes(daemon)
    runner.kill()
    rest = list(events)
    assert rest[-1] == {"error": "an error was encountered while running the model: unexpected EOF"}
    assert not any(e.get("done") for e in rest)
    eventually(lambda: daemon.get("/api/ps")["models"] == [], what="ps forgets the dead runner")
    answer = daemon.post("/api/chat", chat_body(stream=False, options={"num_predict": 4}))
    assert answer["done"]
    assert runner.pid not in {p.pid for p in runner_processes(daemon)}


def test_a_runner_killed_while_idle_is_replaced(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.create("smollm2", smollm2())
    daemon.post("/api/generate", {"model": "smollm2"})
    (runner,) = runner_processes(daemon)
    runner.kill()
    eventually(lambda: daemon.get("/api/ps")["models"] == [], what="ps forgets the dead runner")
    assert daemon.post("/api/generate", {"model": "smollm2"})["done_reason"] == "load"


def test_the_daemon_killed_leaves_no_runner_and_a_whole_store(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.create("smollm2", smollm2())
    events = daemon.stream("/api/chat", chat_body(options=LONG))
    next(events)
    family = daemon.family()
    assert family
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    eventually(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family),
        limit=2.0,
        what="runners end with the daemon",
    )
    daemon.start()
    assert [m["name"] for m in daemon.get("/api/tags")["models"]] == ["smollm2:latest"]
    assert daemon.post("/api/generate", {"model": "smollm2"})["done_reason"] == "load"


def test_a_stopped_runner_ends_with_the_daemon(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.create("smollm2", smollm2())
    daemon.post("/api/generate", {"model": "smollm2"})
    (runner,) = runner_processes(daemon)
    family = daemon.family()
    runner.suspend()
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    eventually(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family),
        limit=3.0,
        what="a stopped runner ends, too",
    )


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_slot(make_daemon: MakeDaemon, stream: bool) -> None:
    daemon = make_daemon()
    daemon.create("smollm2", smollm2())
    # So many tokens that no machine makes them in the time that the second request has.
    endless = {"temperature": 0, "num_ctx": 8192, "num_predict": 80_000}
    daemon.post("/api/generate", {"model": "smollm2", "options": endless})
    (runner,) = runner_processes(daemon)
    body = json.dumps(chat_body(stream=stream, options=endless)).encode()
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        client.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        if stream:
            assert client.recv(65536)
        else:
            eventually(lambda: runner.cpu_percent(0.1) > 20, what="the runner works")
    answer = daemon.post(
        "/api/generate",
        {"model": "smollm2", "prompt": "x", "raw": True, "stream": False,
         "options": {**endless, "num_predict": 1}},
    )  # fmt: skip
    assert answer["done"]
    eventually(lambda: runner.cpu_percent(0.2) < 20, limit=30, what="the runner rests")


def test_leaving_while_the_model_loads(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.create("smollm2", smollm2())
    body = json.dumps(chat_body(options=LONG)).encode()
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        client.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        eventually(lambda: daemon.family() != [], what="the load starts")
    eventually(
        lambda: daemon.family() == [] or daemon.get("/api/ps")["models"] != [],
        what="the load is given up, or was already done",
    )
    assert daemon.post("/api/generate", {"model": "smollm2"})["done_reason"] == "load"


def test_stop_lets_a_short_answer_finish(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMAD_SHUTDOWN_GRACE="60s")
    daemon.create("smollm2", smollm2())
    events = daemon.stream("/api/chat", chat_body(options={**LONG, "num_predict": 60}))
    next(events)
    daemon.signal(signal.SIGTERM)
    rest = list(events)
    assert rest[-1]["done"]
    assert daemon.wait() == 0
    assert daemon.family() == []


def test_stop_cuts_a_long_answer_with_a_word(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMAD_SHUTDOWN_GRACE="500ms")
    daemon.create("smollm2", smollm2())
    events = daemon.stream("/api/chat", chat_body(options=LONG))
    next(events)
    family = daemon.family()
    daemon.signal(signal.SIGTERM)
    rest = list(events)
    assert "shutting down" in rest[-1]["error"]
    assert daemon.wait() == 0
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)


def test_a_second_signal_ends_at_once(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMAD_SHUTDOWN_GRACE="10m")
    daemon.create("smollm2", smollm2())
    events = daemon.stream("/api/chat", chat_body(options=LONG))
    next(events)
    family = daemon.family()
    daemon.signal(signal.SIGINT)
    eventually(lambda: "stopping" in daemon.log, what="the first signal is seen")
    daemon.signal(signal.SIGINT)
    assert daemon.wait() == 130
    eventually(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family),
        limit=2.0,
        what="runners end",
    )


def test_clients_that_do_not_read_do_not_hold_up_the_stop(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(OLLAMAD_SHUTDOWN_GRACE="200ms")
    daemon.create("smollm2", smollm2())
    body = json.dumps(chat_body(options=LONG)).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(("127.0.0.1", daemon.port))
        client.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        eventually(lambda: len(daemon.get("/api/ps")["models"]) == 1, what="the model is loaded")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(20) == 0


def test_models_deleted_while_loaded_are_unloaded(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.create("smollm2", smollm2())
    daemon.post("/api/generate", {"model": "smollm2", "keep_alive": -1})
    assert daemon.request("DELETE", "/api/delete", {"model": "smollm2"})[0] == 200
    eventually(lambda: daemon.get("/api/ps")["models"] == [], what="the model is unloaded")
    eventually(lambda: daemon.family() == [], what="its runner ends")


def test_concurrent_creates_copies_and_deletes(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.create("base", smollm2())
    failures: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            name = f"m{(number + turn) % 3}"
            daemon.request(
                "POST", "/api/create",
                {"model": name, "from": "base", "system": f"{number} {turn}", "stream": False},
            )  # fmt: skip
            daemon.request("POST", "/api/copy", {"source": name, "destination": f"c{number}"})
            status, _, data = daemon.request("DELETE", "/api/delete", {"model": name})
            if status not in (200, 404):
                failures.append(f"{status} {data!r}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for model in daemon.get("/api/tags")["models"]:
        shown = daemon.post("/api/show", {"model": model["name"]})
        assert shown["model_info"]["general.architecture"] == "llama"
    leftovers = [p.name for p in (daemon.models / "blobs").iterdir() if len(p.name) != 71]
    assert leftovers == []
    assert os.listdir(daemon.models / "manifests") == ["registry.ollama.ai"]  # noqa: PTH208
