"""Loads that run out of memory on devices, and runners that keep dying, on a running daemon
(runners-and-scheduling.md 4.6 step 7, 4.16)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.stage import Stage, staged

ONE_GPU = "CUDA0: NVIDIA H100 (81559 MiB, 80995 MiB free)"
SHAPE = {
    "llama__block_count": 32,
    "llama__context_length": 131072,
    "llama__attention__head_count": 8,
    "llama__attention__head_count_kv": 2,
    "llama__embedding_length": 64,
}
FULL = {"log": ["ggml_cuda: cudaMalloc failed: out of memory"], "exit": 1}


def tries(stage: Stage, launches: list[dict[str, Any]], **options: Any) -> tuple[int, str]:
    """The answer to a load whose runners do that, one after the other."""
    stage.will(launches=launches)
    body = json.dumps({"model": "m", "options": options}).encode()
    status, _, data = stage.request("POST", "/api/generate", body)
    return status, json.loads(data).get("error", "")


def told(stage: Stage) -> list[tuple[str | None, str | None]]:
    """Context and layers of each start."""
    return [(start.value("-c"), start.value("-ngl")) for start in stage.starts()]


def test_each_try_takes_less(tmp_path: Path) -> None:
    with staged(tmp_path / "h", FAKE_DEVICES=ONE_GPU) as stage:
        stage.add("m", **SHAPE)
        assert tries(stage, [FULL, FULL, FULL, {}]) == (200, "")
        assert told(stage) == [("131072", None), ("32768", None), ("32768", "16"), ("32768", "0")]
        (entry,) = stage.get("/api/ps")["models"]
        assert entry["context_length"] == 32768
        assert entry["reason"] == "on the CPU: memory ran out with more"
        retries = [line for line in stage.log.splitlines() if "loading m:latest again" in line]
        assert [line.split("again ")[1].split('"')[0] for line in retries] == [
            "with a context of 32768 tokens",
            "with 16 layers on devices",
            "on the CPU",
        ]
        assert all("predicted=" in line and "room_on_devices=" in line for line in retries)
        stage.clear()
        # Who names the layers gets them or the error.
        status, error = tries(stage, [FULL], num_gpu=20, num_ctx=4096)
        assert status == 500
        assert "out of memory" in error
        assert told(stage) == [("4096", "20")]


def test_never_on_the_cpu_when_a_gpu_is_required(tmp_path: Path) -> None:
    with staged(tmp_path / "h", FAKE_DEVICES=ONE_GPU, OLLAMAD_REQUIRE_GPU="1") as stage:
        stage.add("m", **SHAPE)
        status, error = tries(stage, [FULL], num_ctx=4096)
        assert status == 500
        assert "out of memory" in error
        assert told(stage) == [("4096", None), ("4096", "16")]


def test_a_model_whose_runners_die_is_left_alone(tmp_path: Path) -> None:
    with staged(tmp_path / "h") as stage:
        stage.add("m", **SHAPE)
        stage.add("n", **SHAPE)
        stage.will(crash_on="/completion", log=["GGML_ASSERT(a == b) failed"])
        body = {"model": "m", "prompt": "x", "raw": True, "stream": False}
        for _ in range(3):
            assert stage.failure("/api/generate", body)[0] == 500
        status, headers, data = stage.request("POST", "/api/generate", json.dumps(body).encode())
        assert status == 503
        assert 1 <= int(headers["retry-after"]) <= 10
        error = json.loads(data)["error"]
        assert error.startswith("the runner of m:latest died 3 times in a row without an answer")
        assert "signal: killed" in error
        assert len(stage.starts()) == 3
        stage.will()
        assert stage.post("/api/generate", {**body, "model": "n"})["done"]
