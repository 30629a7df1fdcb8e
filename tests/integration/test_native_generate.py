"""generate and chat with a real model: http-api.md 7 to 10, cases C5, C6 and C11."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.daemon import Daemon

FIXED = {"temperature": 0, "seed": 1, "num_predict": 8}


def generate(daemon: Daemon, **fields: Any) -> Any:
    return daemon.post("/api/generate", {"model": "smollm2", "stream": False, **fields})


def chat(daemon: Daemon, *contents: str, **fields: Any) -> Any:
    messages = [{"role": "user", "content": c} for c in contents]
    return daemon.post(
        "/api/chat", {"model": "smollm2", "messages": messages, "stream": False, **fields}
    )


def refused(daemon: Daemon, path: str, body: Any) -> tuple[int, str]:
    status, headers, data = daemon.request("POST", path, body)
    assert headers["content-type"].startswith("application/json")
    return status, json.loads(data)["error"]


def test_stream_and_single_object_say_the_same(daemon: Daemon) -> None:
    body = {"model": "smollm2", "prompt": "Name a colour.", "options": FIXED}
    events = list(daemon.stream("/api/generate", body))
    single = daemon.post("/api/generate", {**body, "stream": False})
    assert "".join(e["response"] for e in events) == single["response"]
    assert single["response"]
    assert [e["done"] for e in events] == [False] * (len(events) - 1) + [True]
    assert list(events[0]) == ["model", "created_at", "response", "done"]
    last = events[-1]
    assert list(last) == [
        "model",
        "created_at",
        "response",
        "done",
        "done_reason",
        "context",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ]
    assert last["eval_count"] == len(events) - 1 == 8
    assert last["done_reason"] == "length"
    assert last["prompt_eval_count"] == single["prompt_eval_count"]


def test_headers_of_a_stream(daemon: Daemon) -> None:
    status, headers, data = daemon.request(
        "POST", "/api/generate", {"model": "smollm2", "prompt": "hi", "options": FIXED}
    )
    assert status == 200
    assert headers["content-type"] == "application/x-ndjson"
    assert headers["transfer-encoding"] == "chunked"
    assert data.endswith(b"\n")


def test_context_continues_a_conversation(daemon: Daemon) -> None:
    first = generate(daemon, prompt="My name is Zoe.", options=FIXED)
    second = generate(daemon, prompt="go on", context=first["context"], options=FIXED)
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] > first["prompt_eval_count"]


def test_raw_sends_the_prompt_untouched(daemon: Daemon) -> None:
    answer = generate(daemon, prompt="The sky is", raw=True, options=FIXED)
    assert answer["prompt_eval_count"] == 3
    assert "context" not in answer
    status, error = refused(
        daemon, "/api/generate", {"model": "smollm2", "prompt": "x", "raw": True, "system": "y"}
    )
    assert (status, error) == (400, "raw mode does not support template, system, or context")


def test_system_replaces_the_templates_own(daemon: Daemon) -> None:
    rendered = generate(daemon, prompt="Hello", system="Be brief.", _debug_render_only=True)
    assert rendered["_debug_info"] == {
        "rendered_template": "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    }
    assert (rendered["response"], rendered["done"]) == ("", False)


def test_stop_strings(daemon: Daemon) -> None:
    plain = generate(
        daemon, prompt="Count: 1 2 3 4", raw=True, options={**FIXED, "num_predict": 20}
    )
    word = plain["response"].split()[1]
    cut = generate(
        daemon,
        prompt="Count: 1 2 3 4",
        raw=True,
        options={**FIXED, "num_predict": 20, "stop": word},
    )
    assert cut["done_reason"] == "stop"
    assert cut["response"] == plain["response"].split(word)[0]


def test_load_and_unload_answers(daemon: Daemon) -> None:
    loaded = generate(daemon)
    assert list(loaded) == ["model", "created_at", "response", "done", "done_reason"]
    assert loaded["done_reason"] == "load"
    assert [m["name"] for m in daemon.get("/api/ps")["models"]] == ["smollm2:latest"]
    chat_loaded = daemon.post("/api/chat", {"model": "smollm2"})
    assert chat_loaded["message"] == {"role": "assistant", "content": ""}
    assert chat_loaded["done_reason"] == "load"
    unloaded = daemon.post("/api/chat", {"model": "smollm2", "messages": [], "keep_alive": 0})
    assert unloaded["done_reason"] == "unload"
    again = generate(daemon, keep_alive=0)
    assert again["done_reason"] == "unload"


def test_chat_events(daemon: Daemon) -> None:
    body = {
        "model": "smollm2",
        "messages": [{"role": "USER", "content": "Say hi"}],
        "options": FIXED,
    }
    events = list(daemon.stream("/api/chat", body))
    assert list(events[0]) == ["model", "created_at", "message", "done"]
    assert all(e["message"]["role"] == "assistant" for e in events)
    assert list(events[-1]) == [
        "model",
        "created_at",
        "message",
        "done",
        "done_reason",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ]
    single = daemon.post("/api/chat", {**body, "stream": False})
    assert single["message"]["content"] == "".join(e["message"]["content"] for e in events)


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_json_format(daemon: Daemon, path: str) -> None:
    prompt = "Describe a cat as JSON."
    body = {
        "model": "smollm2",
        "prompt": prompt,
        "messages": [{"role": "user", "content": prompt}],
        "stream": False,
        "options": {**FIXED, "num_predict": 200},
        "format": {
            "type": "object",
            "properties": {"legs": {"type": "integer"}, "furry": {"type": "boolean"}},
            "required": ["legs", "furry"],
            "additionalProperties": False,
        },
    }
    answer = daemon.post(path, body)
    text = answer.get("response") or answer["message"]["content"]
    decoded = json.loads(text)
    assert list(decoded) == ["legs", "furry"]
    assert isinstance(decoded["legs"], int)
    assert isinstance(decoded["furry"], bool)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/generate", {"prompt": "x"}),
        ("/api/generate", {"prompt": "x", "raw": True}),
        ("/api/chat", {"messages": [{"role": "user", "content": "x"}]}),
    ],
)
def test_a_schema_that_cannot_be_compiled(daemon: Daemon, path: str, fields: Any) -> None:
    body = {"model": "smollm2", "format": {"type": "nonsense"}, "options": FIXED, **fields}
    status, error = refused(daemon, path, body)
    assert status == 400
    assert "unrecognized type nonsense" in error


def test_formats_that_are_none(daemon: Daemon) -> None:
    messages = [{"role": "user", "content": "x"}]
    for value in ("xml", 5, [1], True):
        status, error = refused(
            daemon, "/api/chat", {"model": "smollm2", "messages": messages, "format": value}
        )
        assert status == 500
        assert error.startswith('invalid format: "')
        assert error.endswith('; expected "json" or a valid JSON Schema object')


def test_logprobs(daemon: Daemon) -> None:
    for path in ("/api/generate", "/api/chat"):
        body = {
            "model": "smollm2",
            "prompt": "hi",
            "messages": [{"role": "user", "content": "hi"}],
            "options": FIXED,
            "stream": False,
            "logprobs": True,
            "top_logprobs": 2,
        }
        entries = daemon.post(path, body)["logprobs"]
        assert len(entries) >= 7
        for entry in entries:
            assert entry["logprob"] <= 0
            assert entry["bytes"] == list(entry["token"].encode())
            assert len(entry["top_logprobs"]) == 2


def test_top_logprobs_alone_has_no_effect(daemon: Daemon) -> None:
    assert "logprobs" not in generate(daemon, prompt="hi", options=FIXED, top_logprobs=2)


def test_options_and_their_errors(daemon: Daemon) -> None:
    for options, text in [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"num_ctx": "x"}, 'option "num_ctx" must be of type integer'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
    ]:
        body = {"model": "smollm2", "prompt": "x", "options": options}
        assert refused(daemon, "/api/generate", body) == (500, text)
    ignored = {"mirostat": 2, "Temperature": "x", "stop": None, "num_predict": 1.9}
    assert generate(daemon, prompt="x", options=ignored)["eval_count"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/generate", {"model": "nope", "prompt": "x"}, 404, "model 'nope' not found"),
        ("/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/generate", {}, 404, "model '' not found"),
        ("/api/chat", {}, 400, "model is required"),
        ("/api/generate", {"model": "é"}, 400, "invalid model name"),
        (
            "/api/chat",
            {"model": "a:cloud:local"},
            400,
            'use either :local or :cloud, not both: "a:cloud:local"',
        ),
        (
            "/api/generate",
            {"model": "nope", "top_logprobs": 21},
            400,
            "top_logprobs must be between 0 and 20",
        ),
        (
            "/api/chat",
            {"model": "smollm2", "messages": [{"role": "user", "content": "x"}], "think": True},
            400,
            '"smollm2" does not support thinking',
        ),
        (
            "/api/chat",
            {
                "model": "smollm2",
                "messages": [{"role": "user", "content": "x"}],
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
            400,
            "registry.ollama.ai/library/smollm2:latest does not support tools",
        ),
        (
            "/api/generate",
            {"model": "smollm2", "prompt": "x", "suffix": "y"},
            400,
            "registry.ollama.ai/library/smollm2:latest does not support insert",
        ),
    ],
)
def test_refusals(daemon: Daemon, path: str, body: Any, status: int, text: str) -> None:
    assert refused(daemon, path, body) == (status, text)


def test_an_image_to_a_text_model(daemon: Daemon) -> None:
    status, error = refused(
        daemon, "/api/generate", {"model": "smollm2", "prompt": "x", "images": ["iVBORw0KGgo="]}
    )
    assert status in (400, 500)
    assert "multimodal" in error


def test_names_in_any_case_and_with_suffix(daemon: Daemon) -> None:
    for name in ("SmolLM2", "smollm2:latest", " smollm2 ", "smollm2:latest:local"):
        answer = daemon.post(
            "/api/generate", {"model": name, "prompt": "x", "stream": False, "options": FIXED}
        )
        assert answer["model"] == name


def test_a_long_prompt_is_cut_and_says_so(daemon: Daemon) -> None:
    text = "word " * 1500
    options = {**FIXED, "num_ctx": 512}
    answer = generate(daemon, prompt=text, raw=True, options=options)
    assert answer["prompt_eval_count"] <= 512
    assert answer["prompt_truncated"] > 900
    status, error = refused(
        daemon,
        "/api/generate",
        {
            "model": "smollm2",
            "prompt": text,
            "raw": True,
            "truncate": False,
            "stream": False,
            "options": options,
        },
    )
    assert status == 400
    assert "exceeds the available context size" in error


def test_old_messages_go_first_and_are_counted(daemon: Daemon) -> None:
    long = [f"message {i}: " + "word " * 60 for i in range(12)]
    options = {**FIXED, "num_ctx": 512}
    answer = chat(daemon, *long, options=options)
    assert answer["prompt_truncated"] > 200
    rendered = chat(daemon, *long, options=options, _debug_render_only=True)
    text = rendered["_debug_info"]["rendered_template"]
    assert "message 11:" in text
    assert "message 0:" not in text
    assert rendered["message"] == {"role": "", "content": ""}
    short = chat(daemon, "hi", "there", options=options)
    assert "prompt_truncated" not in short


def test_ps_tells_the_context_and_sizes(daemon: Daemon) -> None:
    generate(daemon, options={"num_ctx": 1000}, keep_alive="10m")
    (model,) = daemon.get("/api/ps")["models"]
    assert list(model) == [
        "name",
        "model",
        "size",
        "digest",
        "details",
        "expires_at",
        "size_vram",
        "context_length",
        "reason",
    ]
    assert (model["context_length"], model["size_vram"]) == (1000, 0)
    assert model["size"] > 90_000_000
    generate(daemon, options={"num_ctx": 99999999})
    (model,) = daemon.get("/api/ps")["models"]
    assert model["context_length"] == 8192
    generate(daemon, options={"num_ctx": 1})
    (model,) = daemon.get("/api/ps")["models"]
    assert model["context_length"] == 4
    assert "2026" in model["expires_at"] or model["expires_at"] > "2026"
    generate(daemon, keep_alive=-1)
    (model,) = daemon.get("/api/ps")["models"]
    assert model["expires_at"] > "2200"
    generate(daemon, keep_alive=0)
