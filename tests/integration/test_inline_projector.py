"""A published file with its eye inside is loaded by llama.cpp that refuses it as it is."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import gemma3
from support.daemon import Daemon, running
from support.vision import BLUE, RED, png

TEMPLATE = (
    "{{ range .Messages }}<start_of_turn>{{ .Role }}\n{{ .Content }}<end_of_turn>\n{{ end }}"
    "<start_of_turn>model\n"
)
OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 1, "num_ctx": 512, "num_thread": 1}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("inline")
    with running(home / "home", {"OLLAMA_MAX_LOADED_MODELS": "9"}) as started:
        published = gemma3.library_file(home / "published.gguf")
        for name in ("eye", "twin"):
            started.create(name, published, template=TEMPLATE)
        started.create("own", gemma3.loadable_text(home / "text.gguf"), template=TEMPLATE)
        yield started


def asked(daemon: Daemon, model: str, content: str, *pictures: bytes) -> tuple[Any, int]:
    """The likeliest first tokens with the logarithms of their probabilities; prompt tokens."""
    message = {"role": "user", "content": content}
    images = [base64.b64encode(picture).decode() for picture in pictures]
    answer = daemon.post(
        "/api/chat",
        {
            "model": model,
            "stream": False,
            "options": OPTIONS,
            "logprobs": True,
            "top_logprobs": 5,
            "messages": [message | {"images": images} if images else message],
        },
    )
    first = answer["logprobs"][0]["top_logprobs"]
    return [(e["token"], pytest.approx(e["logprob"], abs=0.001)) for e in first], answer[
        "prompt_eval_count"
    ]


def derived(daemon: Daemon) -> dict[str, int]:
    """Files made from blobs, by their endings, and when each was written."""
    found = daemon.models.glob("compat/sha256-*")
    return {path.name.partition(".")[2]: path.stat().st_mtime_ns for path in found}


def test_a_picture_changes_the_answer(daemon: Daemon) -> None:
    red, tokens = asked(daemon, "eye", "What?", png(RED))
    blue, _ = asked(daemon, "eye", "What?", png(BLUE))
    assert red != blue
    assert asked(daemon, "eye", "What?", png(RED))[0] == red
    both, more = asked(daemon, "eye", "What?", png(RED), png(BLUE))
    assert both not in (red, blue)
    assert more - tokens >= gemma3.TOKENS_PER_IMAGE


def test_the_text_model_is_that_of_a_file_that_llama_cpp_loads(daemon: Daemon) -> None:
    assert asked(daemon, "eye", "What?") == asked(daemon, "own", "What?")


def test_clients_see_the_published_model(daemon: Daemon) -> None:
    shown = daemon.post("/api/show", {"model": "eye"})
    assert "vision" in shown["capabilities"]
    assert shown["details"]["family"] == "gemma3"
    assert shown["model_info"]["gemma3.vision.block_count"] == gemma3.EYE_LAYERS
    asked(daemon, "eye", "What?")
    loaded = next(m for m in daemon.get("/api/ps")["models"] if m["name"] == "eye:latest")
    listed = next(m for m in daemon.get("/api/tags")["models"] if m["name"] == "eye:latest")
    assert loaded["digest"] == listed["digest"]
    assert loaded["size"] > 1 << 20


def test_made_once_and_gone_with_the_last_model_that_uses_them(daemon: Daemon) -> None:
    asked(daemon, "eye", "What?")
    made = derived(daemon)
    assert sorted(made) == ["v1.json", "v1.mmproj.gguf", "v1.text.gguf"]
    for model in ("eye", "twin"):
        daemon.post("/api/generate", {"model": model, "keep_alive": 0})
        asked(daemon, model, "What?")
        assert derived(daemon) == made
    assert daemon.request("DELETE", "/api/delete", {"model": "eye"})[0] == 200
    assert derived(daemon) == made
    assert daemon.request("DELETE", "/api/delete", {"model": "twin"})[0] == 200
    assert derived(daemon) == {}


def test_without_that_the_runner_refuses_the_file(tmp_path: Path) -> None:
    file = gemma3.library_file(tmp_path / "published.gguf")
    command = [sys.executable, "-P", "-m", "ollamad.runners.embedded", "--model", str(file)]
    command += ["--host", str(tmp_path / "s.sock")]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert ended.returncode == 1
    assert b"gemma3.attention.layer_norm_rms_epsilon" in ended.stdout + ended.stderr
