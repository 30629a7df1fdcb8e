"""How runners are started, and what a client is told when that fails: the contract's cases, on a
running daemon (runners-and-scheduling.md 2, 8.3, 8.4)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.creating import gguf
from support.daemon import alive, eventually
from support.stage import Stage, Start, staged

TERMINATED = "llama-server process has terminated"
LOADING = {"status": 503, "body": {"error": {"message": "Loading model"}}}
INCOMPATIBLE = (
    ": this model may be incompatible with your version of Ollama. If you previously pulled this "
    "model, try updating it by running `ollama pull m:latest`"
)


def load(stage: Stage, model: str = "m", options: Any = None, **fields: Any) -> Start:
    """Load ``model`` and return how its runner was started last."""
    answer = stage.post("/api/generate", {"model": model, "options": options or {}, **fields})
    assert answer["done_reason"] == "load"
    return stage.starts()[-1]


def failed_load(stage: Stage, model: str = "m", **fields: Any) -> tuple[int, str]:
    """Status and text of a load that fails; nothing of it may stay behind."""
    failure = stage.failure("/api/generate", {"model": model, **fields})
    assert stage.loaded() == []
    assert stage.family() == []
    return failure


def flags(start: Start) -> str:
    """The part of the command line that depends on the model and its options."""
    line = " ".join(start.argv)
    begin, end = " --no-webui --offline ", " --cache-ram "
    assert line.startswith(f"--model {start.model} --host ")
    fixed = "--log-verbosity 4 --no-log-prefix --no-log-timestamps "
    assert fixed in line
    return line[line.index(begin) + len(begin) : line.index(end)].replace(fixed, "")


# --- the command line (8.3) -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Models of 30 blocks, trained for 8192 tokens unless they say otherwise."""
    with staged(tmp_path_factory.mktemp("argv") / "home", OLLAMA_NUM_PARALLEL="2") as stage:
        blocks = {"llama__block_count": 30}
        stage.add("m", **blocks)
        stage.add("embed", "bert", bert__context_length=512, bert__pooling_type=1)
        stage.add("qwen2vl", "qwen2vl")
        stage.add("qwen3vl", "qwen3vl")
        stage.compose("vision", stage.file("vision", **blocks), stage.projector())
        stage.compose("adapted", stage.file("m", **blocks), adapters=stage.adapter())
        stage.add("mtp", llama__nextn_predict_layers=1)
        stage.compose("templated", stage.file("templated", **blocks), template="{{ .Prompt }}")
        stage.compose("named", stage.file("named", **blocks), renderer="qwen3-coder")
        richer = stage.file("richer", tokenizer__chat_template="{{ tools }}", **blocks)
        stage.compose("richer", richer, template="{{ .Prompt }}")
        main = stage.file("main")
        drafts = {
            "dflash": stage.file("dflash", "dflash"),
            "mtp-file": stage.file("mtp-file", llama__nextn_predict_layers=1),
            "plain-draft": stage.file("plain-draft"),
        }
        for name, draft in drafts.items():
            stage.compose(name, main, draft_files=draft)
        yield stage


@pytest.fixture
def argv(two_slots: Stage) -> Iterator[Stage]:
    yield two_slots
    two_slots.clear()


BATCH = "--flash-attn auto -b 1024 -ub 1024"
SHIFT = "--context-shift --keep 4"
M = f"-c 8192 -np 2 --load-mode none {BATCH}"
SMALL = "--flash-attn auto -b 512 -ub 512"


Case = tuple[str, dict[str, Any], str]
FLAGS: list[Case] = [
    ("m", {}, f"{M} {SHIFT}"),
    ("m", {"num_ctx": 512}, f"-c 1024 -np 2 --load-mode none {SMALL} {SHIFT}"),
    ("m", {"num_ctx": 1}, f"-c 8 -np 2 --load-mode none {SMALL} {SHIFT}"),
    ("m", {"num_ctx": 100000}, f"-c 16384 -np 2 --load-mode none {BATCH} {SHIFT}"),
    ("m", {"num_gpu": 0}, f"{M} -ngl 0 {SHIFT}"),
    ("m", {"num_gpu": 5}, f"{M} -ngl 5 {SHIFT}"),
    ("m", {"num_thread": 1, "num_batch": 64},
     f"-c 8192 -np 2 --load-mode none --flash-attn auto -b 64 -ub 64 -t 1 {SHIFT}"),
    ("m", {"num_batch": 0}, f"-c 8192 -np 2 --load-mode none --flash-attn auto {SHIFT}"),
    ("m", {"use_mmap": True}, f"-c 8192 -np 2 {BATCH} {SHIFT}"),
    ("m", {"use_mmap": False}, f"{M} {SHIFT}"),
    ("m", {"main_gpu": 0}, f"{M} --split-mode none --main-gpu 0 {SHIFT}"),
    ("m", {"main_gpu": 1}, f"{M} --split-mode none --main-gpu 1 {SHIFT}"),
    ("m", {"shift": False}, M),
    ("m", {"num_keep": 0}, f"{M} --context-shift"),
    ("m", {"num_keep": -1}, f"{M} --context-shift"),
    ("embed", {},
     f"-c 512 -np 1 --load-mode none --flash-attn auto --embedding -b 512 -ub 512 {SHIFT}"),
    ("embed", {"num_batch": 4096},
     f"-c 512 -np 1 --load-mode none --flash-attn auto --embedding -b 512 -ub 512 {SHIFT}"),
    ("embed", {"num_batch": 0},
     f"-c 512 -np 1 --load-mode none --flash-attn auto --embedding {SHIFT}"),
    ("qwen2vl", {}, f"-c 8192 -np 2 --image-min-tokens 1024 --load-mode none {BATCH} {SHIFT}"),
    ("qwen3vl", {}, f"-c 4096 -np 1 --image-min-tokens 1024 --load-mode none {SMALL} {SHIFT}"),
    ("vision", {}, f"-c 8192 -np 2 --mmproj P --load-mode none {BATCH} {SHIFT}"),
    ("vision", {"num_gpu": 5},
     f"-c 8192 -np 2 --mmproj P --no-mmproj-offload --load-mode none {BATCH} -ngl 5 {SHIFT}"),
    ("vision", {"num_gpu": 0},
     f"-c 8192 -np 2 --mmproj P --no-mmproj-offload --load-mode none {BATCH} -ngl 0 {SHIFT}"),
    ("vision", {"num_gpu": 31},
     f"-c 8192 -np 2 --mmproj P --load-mode none {BATCH} -ngl 31 {SHIFT}"),
    ("vision", {"num_ctx": 128}, f"-c 4096 -np 2 --mmproj P --load-mode none {SMALL} {SHIFT}"),
    ("templated", {},
     f"-c 8192 -np 2 --chat-template chatml --load-mode none {BATCH} {SHIFT}"),
    ("named", {},
     f"-c 8192 -np 2 --chat-template chatml --load-mode none {BATCH} {SHIFT}"),
    ("richer", {}, f"{M} {SHIFT}"),
    ("adapted", {}, f"-c 8192 -np 2 --lora P --load-mode none {BATCH} {SHIFT}"),
    ("mtp", {}, f"{M} {SHIFT}"),
    ("mtp", {"draft_num_predict": 4},
     f"-c 8192 -np 2 --spec-type draft-mtp --spec-draft-n-max 4 --spec-draft-backend-sampling"
     f" --load-mode none {BATCH} {SHIFT}"),
    ("dflash", {},
     f"-c 8192 -np 2 --spec-type draft-dflash --spec-draft-n-max 4 --spec-draft-model P"
     f" --load-mode none {BATCH} {SHIFT}"),
    ("dflash", {"draft_num_predict": 0}, f"{M} {SHIFT}"),
    ("mtp-file", {"draft_num_predict": 8},
     f"-c 8192 -np 2 --spec-type draft-mtp --spec-draft-n-max 8 --spec-draft-backend-sampling"
     f" --spec-draft-model P --load-mode none {BATCH} {SHIFT}"),
    ("plain-draft", {},
     f"-c 8192 -np 2 --spec-draft-n-max 4 --spec-draft-model P"
     f" --load-mode none {BATCH} {SHIFT}"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "fields", "expected"), FLAGS, ids=[f"{model} {fields}" for model, fields, _ in FLAGS]
)
def test_flags(argv: Stage, model: str, fields: dict[str, Any], expected: str) -> None:
    request = {"shift": fields["shift"]} if "shift" in fields else {"options": fields}
    if model == "embed":
        body = {"model": model, "input": [], **request}
        assert argv.post("/api/embed", body) == {"model": model, "embeddings": []}
        start = argv.starts()[-1]
    else:
        start = load(argv, model, **request)
    words = flags(start).split()
    for flag in ("--mmproj", "--lora", "--spec-draft-model"):
        if flag in words:
            file = words[words.index(flag) + 1]
            assert Path(file).parent == argv.models / "blobs"
            words[words.index(file)] = "P"
    assert " ".join(words) == expected
    assert start.model == str(argv.blob(model))
    (shown,) = argv.get("/api/ps")["models"]
    assert shown["context_length"] == int(start.value("-c") or 0) // int(start.value("-np") or 1)


def test_the_log_says_why_there_is_only_one_slot(argv: Stage) -> None:
    words = "model architecture does not currently support parallel requests"
    for model, times in (("m", 0), ("qwen3vl", 1)):
        expected = argv.log.count(words) + times
        load(argv, model)
        eventually(lambda n=expected: argv.log.count(words) == n, what=f"{times} such lines")


def test_what_follows_the_contracts_flags(argv: Stage) -> None:
    line = load(argv).argv
    end = line[line.index("--cache-ram") :]
    assert end == ["--cache-ram", end[1], "--no-slots", "--fit", "off", "--device", "none"]
    assert 0 < int(end[1]) <= 8192


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"OLLAMA_KV_CACHE_TYPE": "Q8_0", "OLLAMA_CONTEXT_LENGTH": "2048"},
            "-c 2048 -np 1 --load-mode none --cache-type-k q8_0 --cache-type-v q8_0 "
            "--flash-attn auto -b 512 -ub 512",
        ),
        (
            {"OLLAMA_KV_CACHE_TYPE": " foo ", "OLLAMA_FLASH_ATTENTION": "1"},
            "-c 4096 -np 1 --load-mode none --flash-attn on -b 512 -ub 512",
        ),
        (
            {"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "false"},
            "-c 4096 -np 1 --load-mode none --flash-attn off -b 512 -ub 512",
        ),
    ],
)
def test_flags_of_settings(tmp_path: Path, environ: dict[str, str], expected: str) -> None:
    with staged(tmp_path / "h", **environ) as stage:
        stage.add("m")
        assert flags(load(stage)) == f"{expected} {SHIFT}"


def test_a_runner_is_addressed_privately(argv: Stage) -> None:
    """2.5: a socket in a directory of the daemon's own, and a key that nobody else has."""
    first = load(argv)
    socket = Path(first.value("--host") or "")
    assert socket.suffix == ".sock"
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert len(first.environ["LLAMA_API_KEY"]) >= 16
    assert first.environ["LLAMA_API_KEY"] not in " ".join(first.argv)
    second = load(argv, options={"num_ctx": 512})
    assert second.environ["LLAMA_API_KEY"] != first.environ["LLAMA_API_KEY"]
    assert second.environ["LLAMA_MEDIA_MARKER"] != first.environ["LLAMA_MEDIA_MARKER"]
    assert not socket.exists()


def test_a_path_too_long_for_a_socket_means_a_port_with_a_key(tmp_path: Path) -> None:
    with staged(tmp_path / ("long" * 30)) as stage:
        stage.add("m")
        start = load(stage)
        assert start.value("--host") == "127.0.0.1"
        assert 0 < int(start.value("--port") or 0) < 65536
        assert start.environ["LLAMA_API_KEY"]
        answer = stage.post("/api/generate", {"model": "m", "prompt": "x", "stream": False})
        assert answer["response"]


STRIPPED = {
    "LLAMA_API_KEY": "the daemon's",
    "LLAMA_ARG_API_KEY_FILE": "/nowhere",
    "LLAMA_ARG_HOST": "0.0.0.0",
    "LLAMA_ARG_PORT": "1",
    "LLAMA_ARG_SSL_KEY_FILE": "/nowhere",
    "LLAMA_ARG_API_PREFIX": "/prefix",
    "LLAMA_ARG_MODELS_DIR": "/nowhere",
    "LLAMA_ARG_LOG_FILE": "/nowhere",
    "LLAMA_SERVER_ROUTER_PORT": "1",
    "OLLAMA_API_KEY": "secret",
    "HF_TOKEN": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "NOTIFY_SOCKET": "/nowhere",
}
INHERITED = {
    "LLAMA_ARG_FIT_TARGET": "256",
    "CUDA_ERROR_LEVEL": "50",
    "LD_LIBRARY_PATH": "/usr/lib/foo",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "SOMETHING": "else",
}


def test_the_environment_of_a_runner(tmp_path: Path) -> None:
    with staged(tmp_path / "h", **STRIPPED, **INHERITED) as stage:
        stage.add("m")
        start = load(stage)
        # Neither the key nor the proxies get between the daemon and its runner.
        answer = stage.post("/api/generate", {"model": "m", "prompt": "x", "stream": False})
        assert answer["response"]
        found = dict(start.environ)
        assert found.pop("LLAMA_API_KEY") != STRIPPED["LLAMA_API_KEY"]
        assert [name for name in STRIPPED if name in found] == []
        program = Path(stage.env["OLLAMAD_LLAMA_SERVER"]).parent
        assert found.pop("LD_LIBRARY_PATH") == f"{program}{os.pathsep}/usr/lib/foo"
        assert found.pop("LLAMA_MEDIA_MARKER").startswith("<__ollama_media_")
        daemons_own = {k: v for k, v in stage.env.items() if k not in STRIPPED}
        del daemons_own["LD_LIBRARY_PATH"]
        assert {k: v for k, v in found.items() if k in daemons_own} == daemons_own


# --- loads that fail, and loads that do not (8.4) -------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A daemon that waits one second for a sign of life."""
    home = tmp_path_factory.mktemp("load") / "home"
    with staged(home, OLLAMA_LOAD_TIMEOUT="1s") as stage:
        stage.add("m")
        stage.compose("vision", stage.file("vision"), stage.projector())
        yield stage


@pytest.fixture
def loads(impatient: Stage) -> Iterator[Stage]:
    yield impatient
    impatient.clear()


UNKNOWN_ARCHITECTURE = (
    "llama_model_load: error loading model: error loading model architecture: "
    "unknown model architecture: 'foo'"
)
OUT_OF_MEMORY = "cudaMalloc failed: out of memory"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"exit": 0}, f"{TERMINATED}: OK"),
        ({"exit": 1}, f"{TERMINATED}: exit status 1"),
        ({"exit": 1, "log": ["srv  load: error: bad thing   ", "x CUDA error: something"]},
         f"{TERMINATED}: exit status 1: error: bad thing\nCUDA error: something"),
        ({"exit": 0, "log": ["error: bad thing"]}, f"{TERMINATED}: error: bad thing"),
        ({"signal": signal.SIGKILL}, f"{TERMINATED}: signal: killed"),
        ({"signal": signal.SIGSEGV}, f"{TERMINATED}: signal: segmentation fault"),
        ({"signal": signal.SIGKILL, "log": ["error: bad thing"]},
         f"{TERMINATED}: signal: killed: error: bad thing"),
        ({"exit": 1, "log": [UNKNOWN_ARCHITECTURE,
                             "llama_model_load_from_file_impl: failed to load model"]},
         f"{TERMINATED}: exit status 1: error loading model: error loading model architecture: "
         f"unknown model architecture: 'foo'{INCOMPATIBLE}"),
        ({"log": [OUT_OF_MEMORY], "health": [{"status": 500, "body": {"status": "error"}}]},
         f"llama-server reported out-of-memory during startup: {OUT_OF_MEMORY}"),
        ({"health": [{"status": 500, "body": {"status": "error", "message": "out of memory"}}]},
         "llama-server reported out-of-memory during startup: "
         'llama-server error: {"status": "error", "message": "out of memory"}'),
        ({"exit": 1, "log": [OUT_OF_MEMORY]},
         f"{TERMINATED}: exit status 1: {OUT_OF_MEMORY}"),
    ],
)  # fmt: skip
def test_failed_loads(loads: Stage, script: dict[str, Any], expected: str) -> None:
    loads.will(**script)
    assert failed_load(loads) == (500, expected)
    assert len(loads.starts()) == 1


@pytest.mark.parametrize(
    ("script", "last"),
    [
        ({"listen_ms": 60_000}, ""),
        ({"listen_ms": 60_000, "log": ["error: bad thing"]}, "error: bad thing"),
        ({"health": [LOADING]}, ""),
        ({"health": [{"status": 500, "body": {"status": "error", "message": "weird"}}]}, ""),
        ({"health": [{"status": 503, "body": {"status": "no slot available"}}]}, ""),
    ],
)
def test_stalled_loads(loads: Stage, script: dict[str, Any], last: str) -> None:
    loads.will(**script)
    assert failed_load(loads) == (500, f"timed out waiting for llama-server to start - {last}")
    assert len(loads.starts()) == 1


RETRYING = (
    "ggml_backend_sched_reserve: compute buffer allocation failed, "
    "retrying without pipeline parallelism"
)


@pytest.mark.parametrize(
    "script",
    [
        {"log": [OUT_OF_MEMORY]},
        {"log": [RETRYING], "health": [{"status": 500, "body": "weird"}, {}]},
        {"health": [{"status": 500, "body": {"message": "weird"}, "times": 3}, {}]},
        {"health": [LOADING, {}]},
        {"health": [{"status": 503, "body": {"status": "no slot available"}}, {}]},
        {"dots": 30},  # one and a half times the timeout
    ],
)
def test_loads_that_succeed(loads: Stage, script: dict[str, Any]) -> None:
    loads.will(**script)
    load(loads)
    assert loads.loaded() == ["m"]
    assert len(loads.starts()) == 1


def test_what_was_printed_while_loading_is_no_later_error(loads: Stage) -> None:
    loads.will(log=[OUT_OF_MEMORY], answers={"/completion": [500, "no"]})
    assert loads.failure("/api/generate", {"model": "m", "prompt": "x"}) == (500, "no")
    assert loads.loaded() == ["m"], "an error without words about memory unloads nothing"


def test_a_projector_is_tried_again_in_main_memory(loads: Stage) -> None:
    loads.will(launches=[{"exit": 1, "log": [OUT_OF_MEMORY]}, {}])
    load(loads, "vision")
    first, second = loads.starts()
    assert "--no-mmproj-offload" not in first.argv
    at = first.argv.index("--mmproj") + 2
    assert second.argv[at] == "--no-mmproj-offload"


def test_a_projector_that_does_not_fit_anywhere(loads: Stage) -> None:
    loads.will(exit=1, log=[OUT_OF_MEMORY])
    assert failed_load(loads, "vision") == (
        500,
        "llama-server startup failed after projector CPU offload retry: "
        f"{TERMINATED}: exit status 1: {OUT_OF_MEMORY}",
    )
    assert len(loads.starts()) == 2


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/embed", "/api/embeddings"])
def test_damaged_weights(loads: Stage, path: str) -> None:
    body = {
        "prompt": "x",
        "input": "x",
        "messages": [{"role": "user", "content": "x"}],
        "stream": False,
    }
    name = path.rpartition("/")[2]
    loads.add(name)
    blob = loads.blob(name)
    size = blob.stat().st_size

    os.truncate(blob, size - 1)
    text = f'tensor "w" offset+size ({size}) exceeds file size ({size - 1})'
    assert loads.failure(path, {"model": name, **body}) == (500, text)

    os.truncate(blob, 100)
    assert loads.failure(path, {"model": name, **body}) == (500, "unexpected EOF")

    # http-api.md 6.4 and case 253: of a file that is gone no capability is known.
    blob.unlink()
    assert loads.failure(path, {"model": name, **body}) == (
        (404, f'model "{name}" not found, try pulling it first')
        if name.startswith("embed")
        else (400, f'"{name}" does not support {name}')
    )
    assert loads.starts() == []


@pytest.mark.parametrize(
    ("tensors", "kept", "text"),
    [({}, None, "no projector tensors found"), ({"v": 99}, 100, "unexpected EOF")],
)
def test_a_projector_without_weights(
    loads: Stage, tensors: dict[str, int], kept: int | None, text: str
) -> None:
    projector = loads.home / "bad.gguf"
    keys = {"clip__has_vision_encoder": True, "clip__projector_type": "mlp"}
    projector.write_bytes(gguf("clip", tensors, **keys))
    loads.compose("blind", loads.file("blind"), projector)
    blob = loads.models / "blobs" / loads.upload(projector).replace(":", "-")
    if kept is not None:
        os.truncate(blob, kept)
    assert failed_load(loads, "blind") == (500, f'read mmproj metadata "{blob}": {text}')
    assert loads.starts() == []


# --- the check before each request (2.8, 4.4, 8.7) ------------------------------------------------

ASK = {"model": "m", "prompt": "x", "raw": True, "stream": False}
SICK = {"status": 500, "body": {"status": "error"}}
BUSY = {"status": 503, "body": {"status": "no slot available"}}


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ([{}, SICK], 'llama-server error: {"status": "error"}'),
        ([{}, LOADING], "unexpected server status: llm server loading model"),
        ([{}, BUSY], "no slots available after 10 retries"),
    ],
)
def test_a_runner_that_gets_unready_before_its_first_request(
    loads: Stage, health: list[Any], expected: str
) -> None:
    loads.will(health=health)
    assert loads.failure("/api/generate", ASK) == (500, expected)
    assert len(loads.starts()) == 1


@pytest.mark.parametrize(
    ("health", "starts"),
    [
        ([{**BUSY, "times": 5}, {}], 1),
        ([LOADING, {}], 1),
        ([{"delay_ms": 400}, {}], 1),  # twice the limit of a poll while loading
        ([SICK, {}], 2),
        ([{"status": 500, "body": "no JSON"}, {}], 2),
    ],
)
@pytest.mark.parametrize("slot", [True, False])
def test_a_loaded_runner_is_checked_before_it_is_used(
    loads: Stage, health: list[Any], starts: int, slot: bool
) -> None:
    load(loads)
    loads.will(health=health)
    body = ASK if slot else {"model": "m"}
    assert loads.post("/api/generate", body)["done"]
    assert len(loads.starts()) == starts
    assert loads.loaded() == ["m"]
    eventually(lambda: len(loads.runners()) == 1, what="the old one has gone")


def test_a_runner_that_died_unnoticed_is_replaced(loads: Stage) -> None:
    load(loads)
    # Once without, once behind an answer that has shown that it is fit.
    for starts in (2, 3):
        runner = psutil.Process(loads.starts()[-1].pid)
        watcher = runner.parent()
        assert watcher is not None
        watcher.suspend()  # it would tell the daemon
        runner.kill()
        eventually(lambda runner=runner: not alive(runner), what="the runner is dead")
        assert loads.post("/api/generate", ASK)["done"]
        assert len(loads.starts()) == starts


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_a_runner_prints_goes_into_the_daemons_own_output(
    tmp_path: Path, log_format: str
) -> None:
    printed = ['load_tensors:   CPU "model" = 1.00 MiB', "\twith a tab", "x" * 9000]
    with staged(tmp_path / "h", OLLAMAD_LOG_FORMAT=log_format) as stage:
        stage.add("m")
        stage.will(log=printed)
        load(stage)
        eventually(lambda: "llama-server started" in stage.log, what="the load is in the log")
        lines = stage.log.splitlines()
        if log_format == "json":
            # The first run speaks of its new key before it has a log.
            lines = [json.loads(line)["msg"] for line in lines if line.startswith("{")]
            printed[2] = "x" * 8192 + "… (9000 characters)"
        assert [line for line in lines if line in printed] == printed
