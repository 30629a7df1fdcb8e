"""Requests to a runner and how they fail (3.8, 3.12, 8.6), over real sockets."""

import os
import signal
import socket
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ollamad.errors import RunnerError, RunnerUnfit
from ollamad.runners import protocol
from ollamad.runners.address import UnixAddress
from ollamad.runners.client import STOPPED, RunnerClient
from ollamad.runners.health import State
from ollamad.runners.process import Runner

BODY = b'{"prompt":"a b","stream":true}'
BROKEN = "an error was encountered while running the model: "


async def events(
    runner: Runner,
    path: str = "/completion",
    what: str = "response",
    into: list[bytes] | None = None,
) -> list[bytes]:
    out = [] if into is None else into
    async with runner.client.stream(path, BODY) as response:
        async for batch in response.batches(what):
            assert batch
            out += batch
    return out


async def requests(runner: Runner) -> Any:
    import json

    return json.loads((await runner.client.request_json("/fake/requests"))[1])


async def test_a_stream(start_fake: Any) -> None:
    runner = await start_fake({"tokens": 5, "token": "x"})
    decoded = [protocol.decode_completion(line) for line in await events(runner)]
    assert [event.content for event in decoded] == ["x"] * 5 + [""]
    assert decoded[-1].stop
    assert decoded[-1].timings is not None
    assert decoded[-1].timings.eval_count == 5
    asked = (await requests(runner))[0]
    assert asked["headers"]["connection"] == "close"
    assert asked["body"] == {"prompt": "a b", "stream": True}


async def test_a_chat_stream_has_no_done_mark(start_fake: Any) -> None:
    runner = await start_fake({"tokens": 3})
    lines = await events(runner, "/v1/chat/completions")
    decoded = [protocol.decode_chat(line) for line in lines]
    assert len(decoded) == 4
    assert decoded[-1].choices[0].finish_reason == "length"


async def test_a_big_event_and_one_that_is_too_big(start_fake: Any) -> None:
    big = await start_fake({"events": ["data: " + "x" * 525_312 + "\n\n"]})
    assert [len(line) for line in await events(big)] == [525_312]
    huge = await start_fake({"answers": {"/completion": [200, "x" * 8_000_007]}})
    for what in ("response", "chat response"):
        with pytest.raises(RunnerError) as caught:
            await events(huge, what=what)
        assert str(caught.value) == f"llama-server {what} stream event exceeded 8 MB limit"


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (400, '{"error": {"code": 400, "message": "nope"}}', None),
        (503, " busy text\n", "busy text"),
    ],
)
async def test_a_refusal(start_fake: Any, status: int, body: str, text: str | None) -> None:
    runner = await start_fake({"answers": {"/completion": [status, body]}})
    with pytest.raises(RunnerError) as caught:
        await events(runner)
    assert (caught.value.status, str(caught.value)) == (status, text or body)
    async with runner.client.stream("/completion", BODY, check=False) as response:
        assert response.status == status
        assert await response.read() == body.encode()


async def test_a_refusal_with_out_of_memory_in_the_log(start_fake: Any) -> None:
    oom = "ggml_backend: failed to allocate buffer of size 1"
    runner = await start_fake({"answers": {"/completion": [500, {"error": {"message": "fail"}}]}})
    runner._log.feed(oom.encode() + b"\n")
    with pytest.raises(RunnerError) as caught:
        await events(runner)
    assert str(caught.value) == '{"error": {"message": "fail"}}\n' + oom
    assert caught.value.out_of_memory


async def test_a_runner_killed_before_it_answers(start_fake: Any) -> None:
    runner = await start_fake({"after": "crash", "events": []})
    os.kill(runner.pid, signal.SIGKILL)
    await runner.exited.wait()
    with pytest.raises(RunnerError) as caught:
        await events(runner)
    assert str(caught.value) == STOPPED
    with pytest.raises(RunnerError, match="model runner has unexpectedly stopped"):
        await runner.client.request_json("/props")


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (None, "unexpected EOF"),
        ("CUDA error: xyz", "CUDA error: xyz"),
        ("GGML_ASSERT(foo) failed", "GGML_ASSERT(foo) failed"),
    ],
)
async def test_a_crash_in_mid_stream(start_fake: Any, log: str | None, text: str) -> None:
    script: dict[str, Any] = {"after_tokens": 2, "after": "crash"}
    if log:
        script["crash_log"] = log
    runner = await start_fake(script)
    seen: list[bytes] = []
    with pytest.raises(RunnerError) as caught:
        await events(runner, into=seen)
    assert len(seen) == 2
    assert str(caught.value) == BROKEN + text
    assert runner.exited.is_set()


@pytest.mark.parametrize("after", ["close", "reset"])
async def test_a_cut_connection_ends_the_runner(
    start_fake: Any, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    monkeypatch.setattr("ollamad.runners.process._LAST_WORDS_S", 0.05)
    runner = await start_fake({"after_tokens": 2, "after": after}, tcp=True)
    with pytest.raises(RunnerError) as caught:
        await events(runner)
    assert str(caught.value) == BROKEN + "unexpected EOF"
    with trio.fail_after(30):
        await runner.exited.wait()


async def test_leaving_a_stream_closes_the_connection(start_fake: Any) -> None:
    runner = await start_fake({"after_tokens": 1, "after": "hang", "slots": 1})
    async with runner.client.stream("/completion", BODY) as response:
        async for _ in response.batches():
            break
    with trio.move_on_after(0.05) as scope:
        await events(runner)
    assert scope.cancelled_caught
    # The one slot is free again each time: a third stream gets its first token.
    with trio.fail_after(30):
        async with runner.client.stream("/completion", BODY) as response:
            async for _ in response.batches():
                break


async def test_an_error_of_the_caller_is_not_the_runners(start_fake: Any) -> None:
    runner = await start_fake({"tokens": 3})
    with pytest.raises(ConnectionResetError):
        async with runner.client.stream("/completion", BODY):
            raise ConnectionResetError("the client's own socket")
    assert not runner.exited.is_set()


async def test_helpers(start_fake: Any) -> None:
    runner = await start_fake()
    client = runner.client
    assert await client.tokenize("ab c") == [2, 1]
    assert await client.detokenize([2, 1]) == "xx x"
    chat = b'{"messages":[{"role":"user","content":"hi"}]}'
    assert await client.apply_template(chat) == "user: hi"
    assert await client.count_input_tokens(chat) == 2
    result = await client.embed(["a", "b c"])
    assert [list(vector) for vector in result.vectors] == [[3, 4, 0], [3, 4, 1]]
    assert result.prompt_tokens == 3
    props = await client.props()
    assert props.n_ctx == 256
    assert props.media_marker == runner.media_marker


@pytest.mark.parametrize(
    ("health", "text"),
    [
        (
            [{}, {"status": 500, "body": '{"status": "error"}'}],
            'llama-server error: {"status": "error"}',
        ),
        (
            [{}, {"status": 503, "body": {"status": "loading model"}}],
            "unexpected server status: llm server loading model",
        ),
        ([{}, {"body": {"status": "no slot available"}, "times": 5}, {}], None),
        (
            [{}, {"body": {"status": "no slot available"}}],
            "no slots available after 10 retries",
        ),
    ],
)
async def test_the_gate_before_a_request(
    start_fake: Any, health: list[dict[str, Any]], text: str | None
) -> None:
    runner = await start_fake({"health": health})
    if text is None:
        await runner.client.check_ready()
        return
    with pytest.raises(RunnerError) as caught:
        await runner.client.check_ready()
    assert str(caught.value) == text


async def test_a_runner_that_is_sick_or_gone_is_unfit(start_fake: Any, tmp_path: Any) -> None:
    sick = await start_fake({"health": [{}, {"status": 500, "body": {"status": "error"}}]})
    with pytest.raises(RunnerUnfit, match="llama-server error: "):
        await sick.client.check_ready()
    with pytest.raises(RunnerUnfit, match="llm server not responding"):
        await RunnerClient(UnixAddress(str(tmp_path / "none.sock")), "").check_ready()


async def test_an_answer_shows_for_a_second_that_a_runner_is_fit(
    start_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = await start_fake({"tokens": 5})
    asked = 0

    async def check_ready() -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(runner.client, "check_ready", check_ready)
    await runner.check()
    assert asked == 1
    async with runner.client.stream("/completion", BODY):
        pass
    await runner.check()
    assert asked == 2, "an answer that was not read shows nothing"
    await events(runner)
    await runner.check()
    assert asked == 2
    runner.client.answered_at -= 1.0
    await runner.check()
    assert asked == 3


async def test_the_connection_of_the_short_check_serves_the_next_request(
    start_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = await start_fake({"tokens": 2})
    connects = 0
    connect = runner.client._connect

    async def counted() -> Any:
        nonlocal connects
        connects += 1
        return await connect()

    monkeypatch.setattr(runner.client, "_connect", counted)
    await events(runner)
    assert connects == 1
    await runner.check()
    assert len(await events(runner)) == 3
    assert connects == 2
    # One that has waited for long may be closed by the runner at any moment.
    await runner.check()
    runner.client._spare_at -= 1.0
    assert len(await events(runner)) == 3
    assert connects == 4


async def test_a_runner_that_died_behind_its_last_answer_is_unfit(start_fake: Any) -> None:
    runner = await start_fake({"tokens": 2})
    await events(runner)
    os.kill(runner.pid, signal.SIGKILL)

    async def until_unfit() -> None:
        while True:
            await runner.check()

    with trio.fail_after(30), pytest.raises(RunnerUnfit, match="nobody listens"):
        await until_unfit()


async def test_a_silent_runner_is_unfit_after_ten_seconds(
    tmp_path: Any, autojump_clock: MockClock
) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(RunnerUnfit, match="llm server not responding"):
            await RunnerClient(UnixAddress(path), "").check_ready()
    assert trio.current_time() == 10


async def test_health_without_a_runner(tmp_path: Any) -> None:
    client = RunnerClient(UnixAddress(str(tmp_path / "none.sock")), "")
    health = await client.health()
    assert (health.state, health.text) == (State.NOT_RESPONDING, "connection refused")


async def test_a_health_that_does_not_answer(start_fake: Any) -> None:
    runner = await start_fake({"health": [{}, {"delay_ms": 60_000}]})
    health = await runner.client.health()
    assert (health.state, health.text) == (State.NOT_RESPONDING, "server not responding")


async def test_running_out_of_descriptors_is_not_the_runners_fault(
    start_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import socket

    runner = await start_fake()

    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", full)
        with pytest.raises(RunnerError, match="Too many open files"):
            await runner.client.request_json("/props")
    assert (await runner.client.props()).total_slots == 1
