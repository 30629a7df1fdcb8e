"""Cases of http-api.md C5 to C7 and C11 whose outcome is the real runner's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.creating import gguf
from support.daemon import Daemon

FIXED = {"temperature": 0, "seed": 1, "num_predict": 4}


def error(daemon: Daemon, path: str, **body: Any) -> tuple[int, str]:
    status, _, data = daemon.request("POST", path, {"model": "smollm2", "stream": False, **body})
    return status, json.loads(data)["error"]


@pytest.mark.parametrize("path", ["/api/generate", "/api/embed"])
def test_weights_that_lack_what_the_runner_needs(daemon: Daemon, path: str) -> None:
    file = daemon.home / "lacking.gguf"
    file.write_bytes(gguf(general__file_type=1))
    daemon.create("lacking", file)
    status, text = error(daemon, path, model="lacking", prompt="x", input="x")
    daemon.request("DELETE", "/api/delete", {"model": "lacking"})
    assert status == 500
    assert text.startswith("llama-server process has terminated: ")
    assert "key not found in model: llama." in text


def test_tokens_that_do_not_exist(daemon: Daemon) -> None:
    status, text = error(daemon, "/api/generate", prompt="x", context=[99999999])
    assert status == 500
    assert text.startswith("detokenize error: ")


def test_embedding_with_a_text_model(daemon: Daemon) -> None:
    text = "This server does not support embeddings. Start it with `--embeddings`"
    assert error(daemon, "/api/embed", input="x") == (501, text)
    assert error(daemon, "/api/embeddings", prompt="x") == (500, text)


def test_any_object(daemon: Daemon) -> None:
    for fmt in ({}, "json"):
        body = {"model": "smollm2", "prompt": "A cat:", "raw": True, "stream": False}
        answer = daemon.post("/api/generate", {**body, "format": fmt, "options": FIXED})
        assert answer["response"].lstrip()[:1] == "{"


def test_an_empty_stop_string_ends_at_once(daemon: Daemon) -> None:
    options = {**FIXED, "num_predict": 20, "stop": [""]}
    answer = daemon.post(
        "/api/generate", {"model": "smollm2", "prompt": "hi", "stream": False, "options": options}
    )
    assert (answer["response"], answer["done_reason"], answer["eval_count"]) == ("", "stop", 1)
