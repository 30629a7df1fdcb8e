"""Pictures and sounds reach the model, on every way to a prompt (prompting.md 1.7, 1.9 and 5.4).

SmolLM2 with a tiny eye or ear: what it says about a picture means nothing, but it depends on it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from support.daemon import Daemon, running
from support.models import smollm2
from support.vision import BLUE, RED, TOKENS_PER_IMAGE, png, tiny_ear, tiny_projector, wav

GO_TEMPLATE = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
#: How the prompt of each model is made.
EYES = {
    "eye-native": {},
    "eye-template": {"template": GO_TEMPLATE},
    "eye-renderer": {"renderer": "qwen3-vl-instruct"},
}
#: One thread: on a busy machine several wait for each other most of the time.
OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 1, "num_ctx": 256, "num_thread": 1}


class Seeing(NamedTuple):
    daemon: Daemon
    #: Made if a runner starts another program for what it is sent.
    traces: Path


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeing]:
    """A daemon with models that have an eye or an ear, on a machine that has ffmpeg's programs."""
    home = tmp_path_factory.mktemp("vision")
    programs, traces = home / "bin", home / "traces"
    programs.mkdir()
    for name in ("ffmpeg", "ffprobe"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {traces}\nexit 1\n')
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    with running(home / "home", {"PATH": path, "OLLAMA_MAX_LOADED_MODELS": "9"}) as daemon:
        text = uploaded(daemon, smollm2())
        eye = uploaded(daemon, tiny_projector(home / "eye.gguf"))
        ear = uploaded(daemon, tiny_ear(home / "ear.gguf"))
        models = [(name, eye, fields) for name, fields in EYES.items()]
        for name, projector, fields in [*models, ("ear", ear, {}), ("unloaded", eye, {})]:
            files = {"model.gguf": text, "projector.gguf": projector}
            daemon.post("/api/create", {"model": name, "files": files, "stream": False, **fields})
        yield Seeing(daemon, traces)


def uploaded(daemon: Daemon, path: Path) -> str:
    data = path.read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    status, _, answer = daemon.request("POST", f"/api/blobs/{digest}", data)
    assert status == 201, answer
    return digest


def encoded(*items: bytes) -> list[str]:
    return [base64.b64encode(item).decode() for item in items]


class Said(NamedTuple):
    #: Of each token that may come first, the logarithm of its probability.
    first: dict[str, float]
    prompt_tokens: int

    def is_like(self, other: Said) -> bool:
        """Whether both answers begin from the same thought, as far as arithmetic repeats itself."""
        return self.first.keys() == other.first.keys() and all(
            abs(value - other.first[token]) < 0.02 for token, value in self.first.items()
        )


def asked(daemon: Daemon, path: str, model: str, content: str, *media: bytes) -> Said:
    body: dict[str, Any] = {
        "model": model,
        "stream": False,
        "options": OPTIONS,
        "logprobs": True,
        "top_logprobs": 5,
    }
    images = encoded(*media)
    if path == "/api/chat":
        body["messages"] = [{"role": "user", "content": content, "images": images}]
    else:
        body |= {"prompt": content, "images": images}
    answer = daemon.post(path, body)
    first = answer["logprobs"][0]["top_logprobs"]
    return Said({e["token"]: e["logprob"] for e in first}, answer["prompt_eval_count"])


def refused(daemon: Daemon, path: str, model: str, *media: bytes) -> tuple[int, str]:
    images = encoded(*media)
    body: dict[str, Any] = {"model": model, "images": images, "options": OPTIONS}
    body["prompt"] = "What?"
    body["messages"] = [{"role": "user", "content": "What?", "images": images}]
    status, _, data = daemon.request("POST", path, body)
    return status, json.loads(data)["error"]


def webp(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(png(colour))) as image:
        image.save(out, "WEBP", lossless=True)
    return out.getvalue()


BOTH = pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])


@pytest.mark.parametrize("model", EYES)
@BOTH
def test_a_picture_changes_what_the_model_says(seeing: Seeing, path: str, model: str) -> None:
    daemon = seeing.daemon
    red = asked(daemon, path, model, "What?", png(RED))
    blue = asked(daemon, path, model, "What?", png(BLUE))
    assert not red.is_like(blue)
    assert asked(daemon, path, model, "What?", png(RED)).is_like(red)
    assert asked(daemon, path, model, "What?", webp(RED)).is_like(red)
    both = asked(daemon, path, model, "What?", png(RED), png(BLUE))
    assert both.prompt_tokens == red.prompt_tokens + TOKENS_PER_IMAGE
    assert not both.is_like(asked(daemon, path, model, "What?", png(BLUE), png(RED)))


@pytest.mark.parametrize("model", ["eye-template", "eye-renderer"])
@BOTH
def test_a_picture_stands_where_the_text_says(seeing: Seeing, path: str, model: str) -> None:
    before = asked(seeing.daemon, path, model, "[img] What is it? See above.", png(RED))
    unsaid = asked(seeing.daemon, path, model, " What is it? See above.", png(RED))
    after = asked(seeing.daemon, path, model, "What is it? See above. [img]", png(RED))
    assert before.is_like(unsaid)
    assert not before.is_like(after)


@BOTH
def test_a_picture_without_a_place_comes_before_one_with(seeing: Seeing, path: str) -> None:
    model = "eye-template"
    placed = asked(seeing.daemon, path, model, "[img] or not?", png(RED), png(BLUE))
    assert placed.is_like(asked(seeing.daemon, path, model, " or not?", png(BLUE), png(RED)))
    assert not placed.is_like(asked(seeing.daemon, path, model, " or not?", png(RED), png(BLUE)))


def test_a_raw_prompt_names_its_pictures(seeing: Seeing) -> None:
    body = {"model": "eye-native", "raw": True, "stream": False, "options": OPTIONS}
    body |= {
        "prompt": "Look: [img-0] and [img-1]. They are",
        "images": encoded(png(RED), png(BLUE)),
    }
    two = seeing.daemon.post("/api/generate", body)
    body |= {"prompt": "Look: [img-0] and . They are", "images": encoded(png(RED))}
    assert two["prompt_eval_count"] > seeing.daemon.post("/api/generate", body)["prompt_eval_count"]


@BOTH
def test_a_sound_changes_what_the_model_says(seeing: Seeing, path: str) -> None:
    low = asked(seeing.daemon, path, "ear", "What?", wav(440, 3))
    assert not low.is_like(asked(seeing.daemon, path, "ear", "What?", wav(880, 3)))
    assert asked(seeing.daemon, path, "ear", "What?", wav(440, 3)).is_like(low)


@BOTH
def test_what_is_no_picture_is_refused_before_anything_is_loaded(seeing: Seeing, path: str) -> None:
    for data, reason in (
        (b"hello", "it is no JPEG, PNG, GIF, BMP or WebP picture, and no WAV or MP3 sound"),
        (b"#EXTM3U\n/etc/passwd", "it is no JPEG"),
        (png(RED)[:60], "it is cut short"),
        (b"", "it is empty"),
    ):
        status, error = refused(seeing.daemon, path, "unloaded", png(RED), data)
        assert status == 400
        assert error.startswith(f"cannot read image 2 of 2: {reason}")
    damaged = webp(RED)[:40]
    status, error = refused(seeing.daemon, path, "unloaded", damaged)
    assert (status, error[:19]) == (400, "decode WebP image: ")
    loaded = [m["name"] for m in seeing.daemon.get("/api/ps")["models"]]
    assert "unloaded:latest" not in loaded


@BOTH
def test_a_damaged_picture_is_refused_by_the_runner_alone(seeing: Seeing, path: str) -> None:
    """llama.cpp would have ffprobe look at it, too."""
    whole = png(RED)
    damaged = whole[:41] + b"\xff" * 12 + whole[53:]
    status, error = refused(seeing.daemon, path, "eye-native", damaged)
    assert status == 400
    assert "Failed to load image" in error
    assert not seeing.traces.exists()


def test_show_tells_the_senses(seeing: Seeing) -> None:
    eye = seeing.daemon.post("/api/show", {"model": "eye-native"})
    ear = seeing.daemon.post("/api/show", {"model": "ear"})
    assert "vision" in eye["capabilities"]
    assert "audio" not in eye["capabilities"]
    assert "audio" in ear["capabilities"]
    assert eye["projector_info"]["general.architecture"] == "clip"
    assert eye["projector_info"]["clip.projector_type"] == "mlp"
