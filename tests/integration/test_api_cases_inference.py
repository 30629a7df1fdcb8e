"""generate, chat, embed and ps over HTTP with runners that play a part: what reaches them, and what
becomes of what they answer. http-api.md cases C4 to C7 and those of C11 about inference."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.creating import gguf
from support.daemon import Daemon, eventually
from support.fake import JINJA, FakeDaemon, model_file
from support.raw import exchange, request_bytes

MakeDaemon = Callable[..., Daemon]
JSON = "application/json; charset=utf-8"
PLAIN = "application/json"
STREAM = "application/x-ndjson"
SHORT = {"num_predict": 2}
MODELS = ("/api/generate", "/api/chat")


@pytest.fixture(scope="module", autouse=True)
def models(fake_daemon: FakeDaemon) -> None:
    """``text`` has a chat template, ``mind`` thinks and calls tools, ``bare`` has neither."""
    fake_daemon.add("text", tokenizer__chat_template="{{ messages }}")
    fake_daemon.add("mind", tokenizer__chat_template=JINJA)
    fake_daemon.add("bare")
    fake_daemon.add("bert", "bert", bert__pooling_type=1, bert__context_length=512)


def post(daemon: Daemon, path: str, **body: Any) -> tuple[int, str, list[Any]]:
    """Status, content type, and the objects of the answer."""
    status, headers, data = daemon.request("POST", path, body)
    return status, headers["content-type"], [json.loads(line) for line in data.splitlines()]


def asking(path: str, model: str = "text", **fields: Any) -> dict[str, Any]:
    """A request for text on either endpoint."""
    content = fields.pop("content", "Hello")
    said = (
        {"prompt": content}
        if path == "/api/generate"
        else {"messages": [{"role": "user", "content": content}]}
    )
    return {"model": model, "options": SHORT, **said, **fields}


def chat_event(finish: str | None = None, **delta: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    timings = {"prompt_n": 3, "prompt_ms": 1.5, "predicted_n": 4, "predicted_ms": 2.5, "cache_n": 1}
    event = {"choices": [choice], **({"timings": timings} if finish else {})}
    return f"data: {json.dumps(event)}\n\n"


def completion_event(content: str, **fields: Any) -> str:
    return f"data: {json.dumps({'content': content, 'stop': False, **fields})}\n\n"


def text_of(event: Any) -> str:
    return str(event["message"]["content"] if "message" in event else event["response"])


# --- the order of the checks (9.2, 10.2) ----------------------------------------------------------

#: From the last check to the first: each body adds the fault that comes before those it has.
ORDER_OF_GENERATE = [
    ({"format": "xml"}, 500, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema'),
    ({"options": {"temperature": "hot"}}, 500, 'option "temperature" must be of type float32'),
    ({"suffix": "x"}, 400, "registry.ollama.ai/library/text:latest does not support insert"),
    ({"think": True}, 400, '"text" does not support thinking'),
    ({"raw": True, "system": "x"}, 400, "raw mode does not support template, system, or context"),
    ({"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
]
TOOL = {"type": "function", "function": {"name": "f"}}
ORDER_OF_CHAT = [
    ORDER_OF_GENERATE[0],
    ORDER_OF_GENERATE[1],
    ({"tools": [TOOL]}, 400, "registry.ollama.ai/library/text:latest does not support tools"),
    *ORDER_OF_GENERATE[3:4],
    *ORDER_OF_GENERATE[5:],
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "faults"),
    [("/api/generate", ORDER_OF_GENERATE), ("/api/chat", ORDER_OF_CHAT)],
)
def test_the_first_failure_wins(
    fake: FakeDaemon, path: str, faults: list[tuple[Any, int, str]], stream: bool
) -> None:
    body = asking(path, stream=stream)
    for number, (fault, status, text) in enumerate(faults):
        body |= fault
        found, media, (answer,) = post(fake, path, **body)
        assert (found, answer["error"][: len(text)]) == (status, text)
        # Only what happens in the run itself, which the format does, has the type of a stream's.
        assert media == (PLAIN if stream and number == 0 else JSON)


def test_loading_and_unloading_ask_for_less(fake: FakeDaemon) -> None:
    """A load answers before the prompt is looked at, an unload before everything else."""
    faults = {"format": "xml", "template": "{{", "think": None}
    for path, (answered,) in ((p, post(fake, p, model="text", **faults)[2]) for p in MODELS):
        assert (text_of(answered), answered["done_reason"]) == ("", "load"), path
    for model in ("text", "bert"):
        for path in MODELS:
            status, media, (answer,) = post(
                fake, path, model=model, keep_alive=0, think=True, raw=True, system="x"
            )
            assert (status, media, answer["done_reason"]) == (200, JSON, "unload")


@pytest.mark.parametrize("stream", [True, False, None])
@pytest.mark.parametrize("path", MODELS)
def test_loads_and_unloads_are_single_objects(
    fake: FakeDaemon, path: str, stream: bool | None
) -> None:
    for keep_alive in (None, "0s", 0):
        request = {"model": "text", "stream": stream, "keep_alive": keep_alive}
        answer = exchange(fake.port, request_bytes(f"POST {path}", body=json.dumps(request)))
        assert (answer.status, answer.framing) == (200, "length")
        assert answer.headers["content-type"] == JSON
        decoded = json.loads(answer.body)
        said = (
            {"response": ""}
            if path == "/api/generate"
            else {"message": {"role": "assistant", "content": ""}}
        )
        assert decoded == {
            "model": "text",
            "created_at": decoded["created_at"],
            **said,
            "done": True,
            "done_reason": "load" if keep_alive is None else "unload",
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}(\.\d{1,9})?Z", decoded["created_at"])


def test_unloading_does_not_load(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    daemon = make_daemon(OLLAMAD_LLAMA_SERVER="/bin/false")
    daemon.create("m", model_file(tmp_path, "m"))
    assert daemon.post("/api/generate", {"model": "m", "keep_alive": 0})["done_reason"] == "unload"
    assert daemon.family() == []


@pytest.mark.parametrize(
    ("path", "model", "fields", "status", "text"),
    [
        ("/api/generate", "bert", {}, 400, '"bert" does not support generate'),
        ("/api/generate", "bert", {"content": ""}, 400, '"bert" does not support generate'),
        ("/api/chat", "bert", {}, 400, '"bert" does not support chat'),
        ("/api/chat", "bert", {"tools": [TOOL]}, 400, '"bert" does not support chat'),
        (
            "/api/generate",
            "text",
            {"template": "{{ .System "},
            500,
            "template: :1: unclosed action",
        ),
        ("/api/generate", "text", {"raw": True, "context": [1]}, 400, "raw mode does not support"),
        ("/api/generate", "text", {"raw": True, "template": "x"}, 400, "raw mode does not support"),
    ],
)
def test_requests_that_a_model_cannot_serve(
    fake: FakeDaemon, path: str, model: str, fields: Any, status: int, text: str
) -> None:
    found, media, (answer,) = post(fake, path, **asking(path, model, **fields))
    assert (found, media, answer["error"][: len(text)]) == (status, JSON, text)


def test_models_of_special_kinds(fake: FakeDaemon) -> None:
    def made(name: str, **fields: Any) -> None:
        fake.post("/api/create", {"model": name, "from": "bare", "stream": False, **fields})

    made("painter", info={"capabilities": ["image"]})
    status, media, (answer,) = post(fake, "/api/generate", model="painter", prompt="x")
    assert (status, media) == (400, JSON)
    assert answer["error"] == "image generation models are not currently supported"
    unloaded = fake.post("/api/generate", {"model": "painter", "keep_alive": 0})
    assert unloaded["done_reason"] == "unload"

    # An unknown renderer is no fault of ``raw`` prompts.
    made("rendered", renderer="zzz")
    for path in MODELS:
        status, media, (answer,) = post(fake, path, **asking(path, "rendered"))
        assert (status, media) == (500, JSON)
        assert answer["error"] == 'unknown renderer "zzz"'
    assert post(fake, "/api/generate", model="rendered", prompt="x", raw=True)[0] == 200
    assert post(fake, "/api/generate", model="rendered")[2][0]["done_reason"] == "load"

    projector = fake.home / "p.gguf"
    projector.write_bytes(
        gguf("clip", {"v.x": 64}, clip__has_vision_encoder=True, clip__projector_type="mlp")
    )
    old = model_file(fake.home, "old", "mllama")
    fake.create("old", old)
    body = {"model": "old", "prompt": "x", "images": ["AA==", "AA=="]}
    status, _, (answer,) = post(fake, "/api/generate", **body)
    assert status == 400
    assert answer["error"] == (
        "this model only supports one image while more than one image requested"
    )


# --- keep_alive and ps ----------------------------------------------------------------------------


def loaded(daemon: Daemon) -> dict[str, Any]:
    return {model["name"]: model for model in daemon.get("/api/ps")["models"]}


def lasts(daemon: Daemon, model: str) -> float:
    """Seconds until the model is unloaded."""
    until = datetime.fromisoformat(loaded(daemon)[model]["expires_at"][:19] + "+00:00")
    zone = timedelta(hours=int(loaded(daemon)[model]["expires_at"][-6:-3]))
    return (until - zone).timestamp() - time.time()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(42, 42), (42.5, 42.5), ("42m", 2520), ("1h30m", 5400), (None, 5400), ("1500ms", 1.5)],
)
def test_how_long_a_model_stays(fake: FakeDaemon, value: Any, seconds: float) -> None:
    if value is None:
        fake.post("/api/generate", {"model": "text", "keep_alive": "1h30m"})
    path = "/api/chat"
    fake.post(path, asking(path, stream=False, keep_alive=value))
    assert seconds - 60 < lasts(fake, "text:latest") <= seconds + 1


@pytest.mark.parametrize("value", [-1, -3.14, "-1m", 1e10])
def test_forever(fake: FakeDaemon, value: Any) -> None:
    fake.post("/api/generate", {"model": "text", "keep_alive": value})
    assert loaded(fake)["text:latest"]["expires_at"] > "2300"


def test_an_entry_of_ps(fake: FakeDaemon) -> None:
    fake.post("/api/create", {"model": "derived", "from": "text", "stream": False})
    fake.post("/api/generate", {"model": "Derived", "options": {"num_ctx": 600}})
    entry = loaded(fake)["derived:latest"]
    assert list(entry) == [
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
    tags = {model["name"]: model for model in fake.get("/api/tags")["models"]}
    assert entry["digest"] == tags["derived:latest"]["digest"]
    assert (entry["model"], entry["context_length"]) == ("derived:latest", 600)
    assert tags["derived:latest"]["details"]["parent_model"] == "text:latest"
    assert entry["details"]["parent_model"] == ""
    assert list(entry["details"]) == [
        "parent_model",
        "format",
        "family",
        "families",
        "parameter_size",
        "quantization_level",
    ]
    assert re.search(r"-0[45]:00$", entry["expires_at"])


@pytest.mark.parametrize(("num_ctx", "shown"), [(1, 4), (0, 4), (4096.9, 4096), (10**8, 8192)])
def test_the_context_of_a_loaded_model(fake: FakeDaemon, num_ctx: float, shown: int) -> None:
    fake.post("/api/generate", {"model": "text", "options": {"num_ctx": num_ctx}})
    assert loaded(fake)["text:latest"]["context_length"] == shown


def test_the_last_to_expire_comes_first(fake: FakeDaemon) -> None:
    def names() -> list[str]:
        return [n for n in loaded(fake) if n in ("text:latest", "mind:latest")]

    for model, keep_alive in (("text", "10m"), ("mind", "20m")):
        fake.post("/api/generate", {"model": model, "keep_alive": keep_alive})
    assert names() == ["mind:latest", "text:latest"]
    fake.post("/api/generate", {"model": "mind", "keep_alive": "1m"})
    assert names() == ["text:latest", "mind:latest"]


def test_what_makes_a_runner_new(fake: FakeDaemon) -> None:
    def runner(**fields: Any) -> int:
        fake.post("/api/generate", {"model": "text", "keep_alive": "10m", **fields})
        (found,) = (p.pid for p in fake.runners() if _runs(p, fake, "text"))
        return found

    first = runner()
    assert runner(options={"temperature": 0.1, "unknown": 1, "seed": 5}) == first
    second = runner(shift=False)
    assert second != first
    assert runner(shift=False) == second
    assert runner(shift=False, options={"num_ctx": 512}) != second


def _runs(process: Any, daemon: Daemon, model: str) -> bool:
    manifest = daemon.models / "manifests/registry.ollama.ai/library" / model / "latest"
    layers = json.loads(manifest.read_text())["layers"]
    digest = next(x["digest"] for x in layers if x["mediaType"].endswith(".model"))
    return any(digest[7:] in argument for argument in process.cmdline())


@pytest.mark.parametrize("path", [*MODELS, "/api/embed", "/api/embeddings"])
def test_keep_alive_0_with_something_to_do(fake: FakeDaemon, path: str) -> None:
    model = "bert" if "embed" in path else "text"
    body = asking(path, model, stream=False, keep_alive=0, input="x", prompt="x")
    (answer,) = post(fake, path, **body)[2]
    assert answer.get("done", True)
    eventually(lambda: f"{model}:latest" not in loaded(fake), what="it is unloaded when idle")


def test_unloading_while_it_answers(fake: FakeDaemon) -> None:
    fake.post("/api/generate", {"model": "text", "keep_alive": "10m"})
    fake.will(tokens=400, interval_us=1000)
    events = fake.stream("/api/chat", asking("/api/chat", options={"num_predict": 400}))
    assert not next(events)["done"]
    answer = fake.post("/api/generate", {"model": "text", "keep_alive": 0})
    assert answer["done_reason"] == "unload"
    assert lasts(fake, "text:latest") <= 1
    assert list(events)[-1]["done_reason"] == "length"
    eventually(lambda: "text:latest" not in loaded(fake), what="it is unloaded")


@pytest.mark.parametrize(("setting", "seconds"), [("-1", None), ("abc", 300)])
def test_the_default_of_keep_alive(
    fake: FakeDaemon, tmp_path: Path, setting: str, seconds: float | None
) -> None:
    daemon = FakeDaemon(tmp_path / "home", {"OLLAMA_KEEP_ALIVE": setting, "TZ": "UTC"})
    try:
        daemon.start()
        daemon.add("m")
        daemon.post("/api/generate", {"model": "m"})
        until = loaded(daemon)["m:latest"]["expires_at"]
        assert until.endswith("Z")
        if seconds is None:
            assert until > "2300"
        else:
            at = datetime.fromisoformat(until[:19] + "+00:00").timestamp()
            assert seconds - 5 < at - time.time() <= seconds + 1
    finally:
        daemon.stop()


# --- what reaches the runner ----------------------------------------------------------------------


def sent(daemon: FakeDaemon, endpoint: str, path: str, **body: Any) -> Any:
    """The body that the runner gets for a request of ours."""
    start = time.time()
    status, _, answer = post(daemon, path, stream=False, **body)
    assert status == 200, answer
    return daemon.asked(endpoint, since=start)[-1]


def test_a_chat_as_the_runner_gets_it(fake: FakeDaemon) -> None:
    body = asking("/api/chat", "text", format="json", logprobs=True, top_logprobs=3)
    body["options"] = {"num_predict": 7, "stop": "end", "seed": 5, "temperature": 0}
    got = sent(fake, "/v1/chat/completions", "/api/chat", **body)
    assert got["messages"] == [{"role": "user", "content": "Hello"}]
    assert (got["stream"], got["cache_prompt"]) == (True, True)
    assert (got["n_predict"], got["stop"], got["seed"]) == (7, ["end"], 5)
    assert (got["temperature"], got["n_keep"], got["repeat_last_n"]) == (0, 4, 64)
    assert got["response_format"]["json_schema"]["schema"]["type"] == "object"
    assert (got["logprobs"], got["top_logprobs"]) == (True, 3)
    assert "tools" not in got
    assert "chat_template_kwargs" not in got


def test_generate_as_the_runner_gets_it(fake: FakeDaemon) -> None:
    schema = {"type": "object", "properties": {"z": {}, "a": {}}}
    body = asking("/api/generate", "text", format=schema, system="S", logprobs=True)
    got = sent(fake, "/completion", "/api/generate", **body)
    assert got["prompt"] == "system: S\nuser: Hello"
    assert list(got["json_schema"]["properties"]) == ["z", "a"]
    assert (got["n_predict"], got["n_probs"], "stop" in got) == (2, 1, False)
    raw = sent(fake, "/completion", "/api/generate", model="text", prompt="<raw>", raw=True)
    assert raw["prompt"] == "<raw>"
    assert raw["n_predict"] == 10 * 4096
    assert "json_schema" not in raw


@pytest.mark.parametrize(
    ("model", "think", "expected"),
    [
        ("mind", None, {"enable_thinking": True}),
        ("mind", True, {"enable_thinking": True}),
        ("mind", False, {"enable_thinking": False}),
        ("mind", "low", {"enable_thinking": True, "reasoning_effort": "low"}),
        ("mind", "max", {"enable_thinking": True, "reasoning_effort": "max"}),
        ("text", None, None),
        ("text", False, None),
    ],
)
def test_thinking_as_the_runner_is_told(
    fake: FakeDaemon, model: str, think: Any, expected: Any
) -> None:
    for path, endpoint in zip(MODELS, ("/apply-template", "/v1/chat/completions"), strict=True):
        got = sent(fake, endpoint, path, **asking(path, model, think=think))
        assert got.get("chat_template_kwargs") == expected


def test_tools_as_the_runner_gets_them(fake: FakeDaemon) -> None:
    parameters = {
        "type": "object",
        "additionalProperties": False,
        "required": [],
        "properties": {
            "z": {"type": ["string"], "title": "t", "default": 1, "required": [], "enum": []},
            "a": {"enum": [1, "x"], "type": ["integer", "null"], "items": {"y": 1, "b": 2}},
            "m": {"description": "d", "type": "number", "anyOf": [{"type": ["string"]}]},
        },
        "$defs": {"q": 1, "c": 2},
    }
    tools = [
        {"function": {"parameters": parameters, "strict": True, "name": "f"}, "type": "function"},
        {"type": "function", "function": {"name": "g", "description": "G"}},
    ]
    got = sent(
        fake, "/v1/chat/completions", "/api/chat", **asking("/api/chat", "mind", tools=tools)
    )
    # As text, because the order of the keys matters.
    assert json.dumps(got["tools"], separators=(",", ":")) == (
        '[{"type":"function","function":{"name":"f","parameters":{"type":"object",'
        '"$defs":{"c":2,"q":1},"properties":{"z":{"type":"string"},'
        '"a":{"type":["integer","null"],"items":{"b":2,"y":1},"enum":[1,"x"]},'
        '"m":{"anyOf":[{"type":"string"}],"type":"number","description":"d"}}}}},'
        '{"type":"function","function":{"name":"g","description":"G",'
        '"parameters":{"type":"","properties":null}}}]'
    )


def test_a_conversation_as_the_runner_gets_it(fake: FakeDaemon) -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n...").decode()
    wav = base64.b64encode(b"RIFF....WAVE").decode()
    messages = [
        {"role": "USER", "content": "look", "images": [png, wav]},
        {"role": "user", "images": [[1, 2]]},
        {
            "role": "assistant",
            "content": None,
            "thinking": "hm",
            "tool_calls": [
                {
                    "id": "c1",
                    "function": {"name": "f", "arguments": {"z": 1, "a": {"y": 1, "b": 2}}},
                }
            ],
        },
        {"role": "TOOl", "content": "42", "tool_name": "f", "tool_call_id": "c1"},
        {},
        None,
    ]
    got = sent(
        fake, "/v1/chat/completions", "/api/chat", model="mind", messages=messages, options=SHORT
    )
    empty = {"role": "", "content": ""}
    assert got["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}},
                {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AQI="}}],
        },
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "c1",
                    "index": 0,
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"z":1,"a":{"b":2,"y":1}}'},
                }
            ],
        },
        {"role": "tool", "content": "42", "name": "f", "tool_call_id": "c1"},
        empty,
        empty,
    ]


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        (["user"], ["system: SYS", "user: stored", "user: 0"]),
        (["system", "user"], ["user: stored", "system: 0", "user: 1"]),
        (["user", "system"], ["system: SYS", "user: stored", "user: 0", "system: 1"]),
    ],
)
def test_what_the_model_brings_to_a_chat(
    fake: FakeDaemon, messages: list[str], roles: list[str]
) -> None:
    stored = [{"role": "user", "content": "stored"}]
    base = {"model": "brings", "from": "text", "stream": False}
    fake.post("/api/create", {**base, "system": "SYS", "messages": stored})
    body = [{"role": role, "content": str(i)} for i, role in enumerate(messages)]
    got = sent(fake, "/v1/chat/completions", "/api/chat", model="brings", messages=body)
    assert [f"{m['role']}: {m['content']}" for m in got["messages"]] == roles


def test_what_the_model_brings_to_generate(fake: FakeDaemon) -> None:
    stored = [{"role": "user", "content": "stored"}]
    base = {"model": "brings", "from": "text", "stream": False}
    fake.post("/api/create", {**base, "system": "SYS", "messages": stored})

    def prompt(**fields: Any) -> Any:
        body = {"model": "brings", "prompt": "P", "options": SHORT, **fields}
        return sent(fake, "/completion", "/api/generate", **body)["prompt"]

    assert prompt() == "system: SYS\nuser: stored\nuser: P"
    assert prompt(system="own") == "system: own\nuser: stored\nuser: P"
    # A context continues an answer, so that the stored messages are in it already.
    assert prompt(context=[2, 3]) == "xx xxxsystem: SYS\nuser: P"
    assert prompt(context=[]) == "system: SYS\nuser: P"
    assert prompt(prompt=" ") == "system: SYS\nuser: stored\nuser:  "


def test_old_thoughts_of_qwen3_are_left_out(fake: FakeDaemon) -> None:
    fake.add("qwen", "qwen3", tokenizer__chat_template=JINJA)
    old = "<think>x</think>\n\nabc"
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": old},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": old},
    ]
    for model, first in (("qwen", "abc"), ("mind", old)):
        body = {"model": model, "messages": messages, "options": SHORT}
        got = sent(fake, "/v1/chat/completions", "/api/chat", **body)
        assert [m["content"] for m in got["messages"]] == ["a", first, "b", old]


def test_options_as_the_runner_gets_them(fake: FakeDaemon) -> None:
    options = {"num_predict": 1.9, "Temperature": "x", "stop": None, "mirostat": 2, "top_p": None}
    got = sent(fake, "/completion", "/api/generate", model="text", prompt="x", options=options)
    assert (got["n_predict"], got["temperature"], "stop" in got) == (1, 0.8, False)
    assert got["top_p"] == pytest.approx(0.9)
    for limit, expected in ((0, 40960), (-5, 40960), (99999, 40960), (5, 5)):
        options = {"num_predict": limit, "repeat_last_n": -1, "num_keep": -7}
        if limit == 0 or limit > 5:
            fake.will(tokens=1)
        got = sent(fake, "/completion", "/api/generate", model="text", prompt="x", options=options)
        assert (got["n_predict"], got["repeat_last_n"], got["n_keep"]) == (expected, 4096, -1)


# --- debug answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_debug_answers(fake: FakeDaemon, stream: bool) -> None:
    flags = {"_debug_render_only": True, "stream": stream, "format": "xml"}
    before = len(fake.asked("/completion"))
    status, media, (answer,) = post(fake, "/api/generate", **asking("/api/generate", **flags))
    assert (status, media) == (200, JSON)
    assert list(answer) == ["model", "created_at", "response", "done", "_debug_info"]
    assert (answer["response"], answer["done"]) == ("", False)
    assert answer["_debug_info"] == {"rendered_template": "user: Hello"}
    (answer,) = post(fake, "/api/generate", **asking("/api/generate", images=["AA=="], **flags))[2]
    assert answer["_debug_info"] == {"rendered_template": "user: [img-0]Hello", "image_count": 1}
    status, media, (answer,) = post(fake, "/api/chat", **asking("/api/chat", **flags))
    assert (status, media) == (200, JSON)
    assert list(answer) == ["model", "created_at", "message", "done", "_debug_info"]
    assert answer["message"] == {"role": "", "content": ""}
    assert answer["_debug_info"] == {"rendered_template": "user: Hello"}
    assert len(fake.asked("/completion")) == before


def test_debug_answers_of_a_model_without_a_template(fake: FakeDaemon) -> None:
    """Chat leaves it to the runner, generate sends the bare prompt."""
    for path, text in zip(MODELS, ("Hello", "user: Hello"), strict=True):
        (answer,) = post(fake, path, **asking(path, "bare", _debug_render_only=True))[2]
        assert answer["_debug_info"]["rendered_template"] == text
    got = sent(fake, "/completion", "/api/generate", **asking("/api/generate", "bare"))
    assert got["prompt"] == "Hello"


# --- what becomes of the runner's answers ---------------------------------------------------------


def test_events_of_generate(fake: FakeDaemon) -> None:
    fake.will(
        events=[
            completion_event("Hi", completion_probabilities=[{"token": "Hi", "logprob": -0.5}]),
            completion_event(""),
            completion_event(" <b>"),
            completion_event(
                "",
                stop=True,
                stop_type="eos",
                timings={"prompt_n": 3, "prompt_ms": 1.5, "predicted_n": 4, "predicted_ms": 2.5},
            ),
        ]
    )
    body = asking("/api/generate", logprobs=True)
    status, media, (first, second, last) = post(fake, "/api/generate", **body)
    assert (status, media) == (200, STREAM)
    assert list(first) == ["model", "created_at", "response", "done", "logprobs"]
    assert first["logprobs"] == [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]
    assert (first["response"], second["response"], "logprobs" in second) == ("Hi", " <b>", False)
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
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert last["context"] == [5, 7, 3]  # lengths of the words, as the stand-in counts tokens
    assert (last["prompt_eval_count"], last["prompt_eval_duration"]) == (3, 1_500_000)
    assert (last["eval_count"], last["eval_duration"]) == (4, 2_500_000)
    assert last["total_duration"] >= last["load_duration"] > 0
    status, media, (whole,) = post(fake, "/api/generate", stream=False, **body)
    assert (status, media) == (200, JSON)
    assert (whole["response"], whole["logprobs"]) == ("Hi <b>", first["logprobs"])
    assert list(whole) == [*list(last), "logprobs"]
    raw = fake.request("POST", "/api/generate", {**body, "stream": False})[2]
    assert rb"Hi \u003cb\u003e" in raw


def test_events_of_chat(fake: FakeDaemon) -> None:
    probabilities = {"content": [{"token": "T", "logprob": -1, "top_logprobs": []}]}
    with_logprobs = {
        "choices": [{"delta": {"content": "T"}, "finish_reason": None, "logprobs": probabilities}]
    }
    fake.will(
        events=[
            chat_event(role="assistant", content=None),
            chat_event(reasoning_content="hm"),
            f"data: {json.dumps(with_logprobs)}\n\n",
            'data: {"choices":[]}\n\n: comment\n\n',
            chat_event("length"),
            "data: [DONE]\n\n",
        ]
    )
    body = asking("/api/chat", "mind", logprobs=True)
    status, media, (first, second, last) = post(fake, "/api/chat", **body)
    assert (status, media) == (200, STREAM)
    assert list(first) == ["model", "created_at", "message", "done"]
    assert list(first["message"].items()) == [
        ("role", "assistant"),
        ("content", ""),
        ("thinking", "hm"),
    ]
    assert list(second) == ["model", "created_at", "message", "done", "logprobs"]
    assert second["message"] == {"role": "assistant", "content": "T"}
    assert list(last) == [
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
    assert (last["done_reason"], last["prompt_eval_count"]) == ("length", 4)
    (whole,) = post(fake, "/api/chat", stream=False, **body)[2]
    assert whole["message"] == {"role": "assistant", "content": "T", "thinking": "hm"}
    assert list(whole)[4:6] == ["done_reason", "logprobs"]


CALL = '{"z":1.0,"a":{"y":[{"d":1,"c":2}],"b":"<"},"m":null}'


def call_events(*arguments: str, finish: str = "tool_calls") -> list[str]:
    """A text, then a call of ``f`` whose arguments come in pieces."""
    pieces = [{"index": 1, "function": {"arguments": text}} for text in arguments]
    head = {"index": 1, "id": "call-7", "function": {"name": "f", "arguments": ""}}
    return [
        chat_event(content="So: "),
        chat_event(tool_calls=[head]),
        *[chat_event(tool_calls=[piece]) for piece in pieces],
        chat_event(tool_calls=[{"index": 2, "function": {"name": "g"}}]),
        chat_event(finish),
    ]


def test_tool_calls(fake: FakeDaemon) -> None:
    fake.will(events=call_events(CALL[:9], CALL[9:]))
    body = asking("/api/chat", "mind", tools=[TOOL])
    first, last = post(fake, "/api/chat", **body)[2]
    assert first["message"] == {"role": "assistant", "content": "So: "}
    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "stop", "")
    calls = last["message"]["tool_calls"]
    assert [list(call) for call in calls] == [["id", "function"], ["function"]]
    assert [list(call["function"]) for call in calls] == [["index", "name", "arguments"]] * 2
    assert [call["function"]["index"] for call in calls] == [0, 1]
    assert (calls[0]["id"], calls[1]["function"]["arguments"]) == ("call-7", {})
    raw = fake.request("POST", "/api/chat", body)[2].decode()
    # The model's order, but sorted within; numbers as the API writes them.
    assert r'"arguments":{"z":1,"a":{"b":"\u003c","y":[{"c":2,"d":1}]},"m":null}' in raw
    (whole,) = post(fake, "/api/chat", stream=False, **body)[2]
    assert whole["message"] == {"role": "assistant", "content": "So: ", "tool_calls": calls}


def test_tool_calls_that_are_cut_off(fake: FakeDaemon) -> None:
    fake.will(events=call_events('{"a":')[1:])
    """Not the contract's 500 (case 273): nothing that a model says is lost, or an error."""
    body = asking("/api/chat", "mind", tools=[TOOL])
    for stream in (True, False):
        status, _, events = post(fake, "/api/chat", stream=stream, **body)
        assert status == 200
        assert "".join(e["message"]["content"] for e in events) == 'f {"a":'
        (call,) = events[-1]["message"]["tool_calls"]
        assert call["function"] == {"index": 0, "name": "g", "arguments": {}}
    first, second, last = held(fake, "/api/chat", body, call_events('{"a":', finish="length"))
    assert [e["message"]["content"] for e in (first, second, last)] == ["So: ", 'f {"a":', ""]
    assert (last["done"], last["done_reason"]) == (True, "length")


def held(daemon: FakeDaemon, path: str, body: Any, events: list[str]) -> list[Any]:
    """The events of an answer whose first one has arrived before the runner sends the others."""
    gate = daemon.home / f"gate-{time.time_ns()}"
    daemon.will(events=events, hold=str(gate))
    stream = daemon.stream(path, body)
    found = [next(stream)]
    gate.touch()
    found += stream
    return found


RUNNER_ERRORS = [
    (503, "model is overloaded", "model is overloaded"),
    (429, "rate limit exceeded", "rate limit exceeded"),
    (400, {"error": {"code": 400}}, '{"error": {"code": 400}}'),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", MODELS)
@pytest.mark.parametrize(("status", "content", "text"), RUNNER_ERRORS)
def test_a_runner_that_refuses(
    fake: FakeDaemon, path: str, stream: bool, status: int, content: Any, text: str
) -> None:
    endpoint = "/completion" if path == "/api/generate" else "/v1/chat/completions"
    fake.will(answers={endpoint: [status, content]})
    found, headers, data = fake.request("POST", path, asking(path, stream=stream))
    assert (found, json.loads(data)) == (status, {"error": text})
    assert headers["content-type"] == (PLAIN if stream else JSON)
    assert ("retry-after" in headers) == (status != 400)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("endpoint", "fields", "status", "text"),
    [
        ("/apply-template", {}, 400, "no such filter"),
        ("/detokenize", {"context": [99999999]}, 500, "detokenize error: no such filter"),
    ],
)
def test_prompts_that_cannot_be_made(
    fake: FakeDaemon, endpoint: str, fields: Any, status: int, text: str, stream: bool
) -> None:
    fake.will(answers={endpoint: [400, "no such filter"]})
    body = asking("/api/generate", stream=stream, **fields)
    found, media, (answer,) = post(fake, "/api/generate", **body)
    assert (found, media, answer) == (status, JSON, {"error": text})


BROKEN = "an error was encountered while running the model: unexpected EOF"


@pytest.mark.parametrize(
    ("path", "after"), [(MODELS[0], "end"), (MODELS[1], "end"), (MODELS[0], "close")]
)
def test_a_runner_that_breaks_off(fake: FakeDaemon, path: str, after: str) -> None:
    """Never silently: not even when its stream ends in good order, but without a last event."""
    fake.will(after_tokens=2, after=after)
    status, media, events = post(fake, path, **asking(path))
    assert (status, media) == (200, STREAM)
    assert [text_of(e) for e in events[:-1]] == [" tok", " tok"]
    assert events[-1] == {"error": BROKEN}
    status, media, (answer,) = post(fake, path, **asking(path, stream=False))
    assert (status, media, answer) == (500, JSON, {"error": BROKEN})
    fake.will(after_tokens=0, after=after)
    status, media, (answer,) = post(fake, path, **asking(path))
    assert (status, media, answer) == (500, PLAIN, {"error": BROKEN})


def test_errors_inside_a_runners_stream(fake: FakeDaemon) -> None:
    boom = 'data: {"error":{"code":500,"message":"boom","type":"server_error"}}\n\n'
    for path, before, text in (
        ("/api/generate", completion_event("x"), "boom"),
        ("/api/chat", chat_event(content="x"), "llama-server chat error: boom"),
    ):
        fake.will(events=[boom])
        assert post(fake, path, **asking(path)) == (500, PLAIN, [{"error": text}])
        first, last = held(fake, path, asking(path), [before, boom])
        assert (text_of(first), last) == ("x", {"error": text})
        assert post(fake, path, **asking(path, stream=False)) == (500, JSON, [{"error": text}])


def test_a_model_that_repeats_itself(fake: FakeDaemon) -> None:
    fake.will(tokens=40, token="la ")
    events = post(fake, "/api/generate", **asking("/api/generate"))[2]
    assert [e["response"] for e in events[:-1]] == ["la "] * 31
    assert events[-1]["done"]  # the reference ends without a word
    events = post(fake, "/api/chat", **asking("/api/chat"))[2]
    assert len(events) == 41


def test_a_runner_that_does_not_start(fake: FakeDaemon) -> None:
    fake.add("faulty", tokenizer__chat_template="x")
    fake.will(exit=1, log=["error loading model: key not found in model: llama.block_count"])
    for stream, path in ((True, MODELS[0]), (False, MODELS[1]), (False, "/api/embed")):
        body = asking(path, "faulty", stream=stream, input="x")
        status, media, (answer,) = post(fake, path, **body)
        assert (status, media) == (500, JSON)
        assert answer["error"].startswith(
            "llama-server process has terminated: exit status 1: error loading model: key not found"
        )


def test_a_full_queue(tmp_path: Path) -> None:
    """One answers, one may wait; whoever comes then is told when to come again."""
    daemon = FakeDaemon(tmp_path / "home", {"OLLAMA_MAX_QUEUE": "1", "OLLAMAD_SHUTDOWN_GRACE": "0"})
    answers: list[tuple[int, dict[str, str], bytes]] = []
    try:
        daemon.start()
        daemon.add("m", tokenizer__chat_template="x")
        daemon.will(tokens=10**6, interval_us=1000)
        body = asking("/api/chat", "m", options={"num_predict": 10**6})
        running = daemon.stream("/api/chat", body)
        next(running)
        clients = [
            threading.Thread(target=lambda: answers.append(daemon.request("POST", MODELS[1], body)))
            for _ in range(3)
        ]
        for client in clients:
            client.start()
        eventually(lambda: len(answers) == 2, what="two of three are refused")
        for status, headers, data in answers:
            assert status == 503
            assert json.loads(data) == {
                "error": "server busy, please try again.  maximum pending requests exceeded"
            }
            assert headers["content-type"] == JSON
            assert int(headers["retry-after"]) >= 1
        running.close()
    finally:
        daemon.stop()
        for client in clients:
            client.join()


# --- C7: embed ------------------------------------------------------------------------------------


def test_embeddings(fake: FakeDaemon) -> None:
    status, media, (answer,) = post(fake, "/api/embed", model="bert", input=["one two", "three"])
    assert (status, media) == (200, JSON)
    assert list(answer) == [
        "model",
        "embeddings",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
    ]
    assert answer["embeddings"][0] == [0.6, 0.8, 0]
    assert sum(x * x for x in answer["embeddings"][1]) == pytest.approx(1)
    assert answer["prompt_eval_count"] == 3
    (cut,) = post(fake, "/api/embed", model="bert", input=["a", "b"], dimensions=2)[2]
    assert cut["embeddings"] == [[0.6, 0.8], [0.6, 0.8]]
    for dimensions in (-2, 3, 99):
        (full,) = post(fake, "/api/embed", model="bert", input="a", dimensions=dimensions)[2]
        assert len(full["embeddings"][0]) == 3
    (one,) = post(fake, "/api/embed", model="bert", input=[""])[2]
    assert len(one["embeddings"]) == 1
    raw = fake.request("POST", "/api/embed", {"model": "bert", "input": "a"})[2]
    assert b'"embeddings":[[0.6,0.8,0]]' in raw


@pytest.mark.parametrize("value", [{}, {"input": None}, {"input": ""}, {"input": []}])
def test_nothing_to_embed(fake: FakeDaemon, value: Any) -> None:
    raw = fake.request("POST", "/api/embed", {"model": "bert", **value})[2]
    assert raw == b'{"model":"bert","embeddings":[]}'


@pytest.mark.parametrize("value", [5, True, {}, ["a", 1], [None]])
def test_what_cannot_be_embedded(fake: FakeDaemon, value: Any) -> None:
    for model in ("bert", "missing"):
        answer = post(fake, "/api/embed", model=model, input=value)
        assert answer == (400, JSON, [{"error": "invalid input type"}])


def test_legacy_embeddings(fake: FakeDaemon) -> None:
    assert fake.request("POST", "/api/embeddings", {"model": "bert"})[2] == b'{"embedding":[]}'
    fake.will(answers={"/v1/embeddings": [200, {"data": [{"embedding": [0.1, 2.0]}]}]})
    body = {"model": "bert", "prompt": "x"}
    answer = fake.request("POST", "/api/embeddings", body)
    assert answer[1]["content-type"] == JSON
    assert answer[2] == b'{"embedding":[0.10000000149011612,2]}'
    # Names are taken as they are written here.
    assert post(fake, "/api/embeddings", model="BERT", prompt="x")[0] == 404
    assert post(fake, "/api/embed", model="BERT", input="x")[0] == 200


@pytest.mark.parametrize(
    ("answer", "embed", "legacy", "text"),
    [
        ([429, {"error": {"message": "mm"}}], 429, 500, "mm"),
        ([501, {"error": {"message": "no embeddings"}}], 501, 500, "no embeddings"),
        (
            [400, {"error": {"message": "input is too large to process"}}],
            400,
            500,
            "the input length exceeds the context length",
        ),
        (
            [200, {"data": [{"embedding": [1.5, None]}]}],
            400,
            500,
            "embedding contains NaN or Inf values",
        ),
        ([200, {"data": []}], 400, 500, "empty embedding response"),
    ],
)
def test_embeddings_that_fail(
    fake: FakeDaemon, answer: Any, embed: int, legacy: int, text: str
) -> None:
    fake.will(answers={"/v1/embeddings": answer})
    body = {"model": "bert", "input": "x", "truncate": False}
    assert post(fake, "/api/embed", **body) == (embed, JSON, [{"error": text}])
    found = post(fake, "/api/embeddings", model="bert", prompt="x")
    assert found == (legacy, JSON, [{"error": text}])


def test_a_zero_vector_stays_zero(fake: FakeDaemon) -> None:
    fake.will(answers={"/v1/embeddings": [200, {"data": [{"embedding": [0, 0]}]}]})
    (answer,) = post(fake, "/api/embed", model="bert", input="x")[2]
    assert answer["embeddings"] == [[0, 0]]


def test_inputs_that_are_too_long(fake: FakeDaemon) -> None:
    text = "word " * 600
    refused = post(fake, "/api/embed", model="bert", input=text, truncate=False)
    assert refused == (400, JSON, [{"error": "the input length exceeds the context length"}])
    got = sent(fake, "/v1/embeddings", "/api/embed", model="bert", input=text)
    (kept,) = got["input"]
    assert 500 < len(kept.split()) <= 512
