"""Prompts as clients see them, and how a runner is started for them.

Runners are stand-ins. Source: prompting.md C5 (who makes the prompts), C7 (rendered requests), and
the checks of 1.5 and 1.6 as far as they depend on a template or a parser.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.daemon import Daemon
from support.fake import FakeDaemon, running_fake

MakeDaemon = Callable[..., Daemon]
CHAT, GENERATE = "/api/chat", "/api/generate"
JSON = "application/json; charset=utf-8"
IMAGE = base64.b64encode(b"an image").decode()

TL = (
    "{{ range .Messages }}<{{ .Role }}|{{ .Content }}"
    "{{ if .Images }}|{{ len .Images }}{{ end }}>{{ end }}"
)
INFILL = (
    "{{ if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>"
    "{{ else }}[{{ .System }}]{{ .Prompt }}{{ end }}"
)
THINKS = (
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}"
    "|{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}"
)
#: What the model ``t1`` brings to each conversation.
STORED = "<system|SYS><user|mu><assistant|ma>"


def post(daemon: Daemon, path: str, body: dict[str, Any]) -> tuple[int, str, Any]:
    status, headers, data = daemon.request("POST", path, body)
    return status, headers["content-type"], json.loads(data)


def derive(daemon: Daemon, name: str, **fields: Any) -> None:
    """A model without a chat template, with ``fields`` of a create request."""
    daemon.post("/api/create", {"model": name, "from": "bones", "stream": False, **fields})


@pytest.fixture(scope="module", autouse=True)
def models(fake_daemon: FakeDaemon) -> None:
    """``t1`` has the template, system text and messages of C7; ``bones`` nothing but weights."""
    fake_daemon.add("bones")
    history = [{"role": "user", "content": "mu"}, {"role": "assistant", "content": "ma"}]
    derive(fake_daemon, "t1", template=TL, system="SYS", messages=history)
    derive(fake_daemon, "tooled", template=TL + "{{ .Tools }}")
    derive(fake_daemon, "infill", template=INFILL)
    derive(fake_daemon, "thinks", template=THINKS)
    derive(fake_daemon, "qwen35", renderer="qwen3.5", parser="qwen3.5")
    derive(fake_daemon, "strange", renderer="nope")
    derive(fake_daemon, "unread", parser="nope", template=TL)


# --- C7 -------------------------------------------------------------------------------------------


def user(content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def chat(*messages: dict[str, Any], model: str = "t1", **fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"model": model, "messages": list(messages), **fields}


def generate(prompt: str = "hi", *, model: str = "t1", **fields: Any) -> tuple[str, dict[str, Any]]:
    return GENERATE, {"model": model, "prompt": prompt, **fields}


RENDERED = [
    (chat(user("hi")), f"{STORED}<user|hi>"),
    (
        chat({"role": "System", "content": "X"}, user("hi")),
        "<user|mu><assistant|ma><system|X><user|hi>",
    ),
    (
        chat(user("hi"), {"role": "system", "content": "X"}, user("yo")),
        f"{STORED}<user|hi><system|X><user|yo>",
    ),
    (generate(), f"{STORED}<user|hi>"),
    (generate(system="X"), "<system|X><user|mu><assistant|ma><user|hi>"),
    (generate(context=[]), "<system|SYS><user|hi>"),
    (generate(context=[1, 2, 3]), "x xx xxx<system|SYS><user|hi>"),
    (generate(template="T:{{ .System }}:{{ .Prompt }}"), "T:SYS:mumaT::hi"),
    (generate(template="{{ range .Messages }}{{ end }}{{ .Tools }}"), "[]"),
    (generate(raw=True), "hi"),
    (generate(raw=True, context=[]), "hi"),
    (generate(model="infill", system="Q", suffix="s"), "<PRE> hi <SUF>s <MID>"),
    # 1.6.9: the request's own template fills the gap, too.
    (
        generate(model="infill", suffix="s", template="A{{ .Prompt }}B{{ .Suffix }}C"),
        "AhiBsC",
    ),
    (generate(model="infill", system="Q"), "[Q]hi"),
    (chat(user("hi"), model="tooled"), "<user|hi>null"),
    (chat(user("hi"), model="tooled", tools=[]), "<user|hi>[]"),
    (generate(model="tooled"), "<user|hi>[]"),
    (
        chat(user("hi"), model="tooled", tools=[{"type": "function", "function": {"name": "f"}}]),
        '<user|hi>[{"type":"function","function":{"name":"f","description":"",'
        '"parameters":{"type":"","properties":null}}}]',
    ),
    *(
        (made(model="thinks", **think), expected)
        for made in (lambda **fields: chat(user("hi"), **fields), generate)
        for think, expected in (
            ({}, "|true medium true"),
            ({"think": None}, "|true medium true"),
            ({"think": True}, "|true medium true"),
            ({"think": False}, "|false  true"),
            ({"think": "low"}, "|true low true"),
            ({"think": "max"}, "|true max true"),
        )
    ),
    (
        generate(model="qwen35", think=False),
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
    (
        # 1.6.5, the recommended order: the default is thinking.
        generate(model="qwen35"),
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n",
    ),
    (chat(user("hi"), model="unread"), "<user|hi>"),
    (generate(model="unread"), "<user|hi>"),
    (generate(model="strange", raw=True), "hi"),
]


def _id(case: Any) -> str:
    return json.dumps(case[1])[1:60] if isinstance(case, tuple) else ""


@pytest.mark.parametrize(("request_", "expected"), RENDERED, ids=_id)
def test_what_a_request_is_rendered_to(
    fake: FakeDaemon, request_: tuple[str, dict[str, Any]], expected: str
) -> None:
    path, body = request_
    status, media, answer = post(fake, path, {**body, "_debug_render_only": True})
    assert (status, media) == (200, JSON), answer
    assert answer["_debug_info"] == {"rendered_template": expected}


@pytest.mark.parametrize(
    ("request_", "expected", "count"),
    [
        (chat(user("a [img] b", images=[IMAGE] * 2)), "<user|[img-1]a [img-0] b|2>", 2),
        (
            chat(user("a", images=[IMAGE]), user("b", images=[IMAGE])),
            "<user|[img-0]a\n\n[img-1]b|1>",
            2,
        ),
        (generate(images=[IMAGE]), "<user|[img-0]hi|1>", 1),
    ],
)
def test_where_images_stand(
    fake: FakeDaemon, request_: tuple[str, dict[str, Any]], expected: str, count: int
) -> None:
    path, body = request_
    answer = fake.post(path, {**body, "_debug_render_only": True})
    assert answer["_debug_info"] == {
        "rendered_template": STORED + expected,
        "image_count": count,
    }


THINK_TEXT = 'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)'
THINK_TYPE = 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'
RAW = "raw mode does not support template, system, or context"
FULL = "registry.ollama.ai/library/t1:latest"


@pytest.mark.parametrize(
    ("request_", "status", "text"),
    [
        (generate(template="{{ .X"), 500, "template: :1: unclosed action"),
        (generate(raw=True, system="x"), 400, RAW),
        (generate(raw=True, context=[1]), 400, RAW),
        (generate(raw=True, template="x"), 400, RAW),
        (generate(suffix="s"), 400, f"{FULL} does not support insert"),
        (chat(user("hi"), tools=[{}]), 400, f"{FULL} does not support tools"),
        (chat(user("hi"), think=True), 400, '"t1" does not support thinking'),
        (generate(think=True), 400, '"t1" does not support thinking'),
        (generate(think="low"), 400, '"t1" does not support thinking'),
        (chat(user("hi"), think="x"), 400, THINK_TEXT),
        (generate(think="x"), 400, THINK_TEXT),
        (chat(user("hi"), think=3), 400, THINK_TYPE),
        (generate(think=3), 400, THINK_TYPE),
        (chat(user("hi"), top_logprobs=21), 400, "top_logprobs must be between 0 and 20"),
        (generate(top_logprobs=-1), 400, "top_logprobs must be between 0 and 20"),
        (chat(user("hi"), model=""), 400, "model is required"),
        (chat(user("hi"), model="nope"), 404, "model 'nope' not found"),
        (generate(model=""), 404, "model '' not found"),
        (chat(user("hi"), model="strange"), 500, 'unknown renderer "nope"'),
        (generate(model="strange"), 500, 'unknown renderer "nope"'),
    ],
    ids=_id,
)
def test_requests_that_cannot_be_rendered(
    fake: FakeDaemon, request_: tuple[str, dict[str, Any]], status: int, text: str
) -> None:
    path, body = request_
    found = post(fake, path, {**body, "_debug_render_only": True})
    assert found == (status, JSON, {"error": text})


@pytest.mark.parametrize(
    "request_",
    [
        *(generate(), generate(think=True), generate(suffix="s"), generate(prompt="")),
        *(chat(user("hi")), chat(user("hi"), think=True), chat(user("hi"), tools=[{}]), chat()),
    ],
    ids=_id,
)
def test_a_stored_template_that_cannot_be_parsed(
    fake: FakeDaemon, request_: tuple[str, dict[str, Any]]
) -> None:
    """At lookup (http-api.md 9.2, 10.2); but the model can be unloaded."""
    text = "{{ .Prompt }} and more"
    derive(fake, "torn", template=text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (fake.models / "blobs" / f"sha256-{digest}").write_text("{{ .Prompt")
    path, body = request_
    body = {**body, "model": "torn"}
    text = "template: :1: unclosed action"
    assert post(fake, path, body) == (500, JSON, {"error": text})
    unload = {"model": "torn", "keep_alive": 0}
    assert fake.post(path, unload)["done_reason"] == "unload"


def test_a_rendering_asks_the_runner_for_nothing_more(fake: FakeDaemon) -> None:
    """Nothing is generated, and the format is not looked at."""
    start = time.time()
    for path, body in (chat(user("hi")), generate()):
        answer = fake.post(path, {**body, "_debug_render_only": True, "format": "xml"})
        assert answer["_debug_info"] == {"rendered_template": f"{STORED}<user|hi>"}
        assert answer["done"] is False
    assert fake.asked("/completion", since=start) == []


# --- 1.5 and 1.6 on a rendered model --------------------------------------------------------------

#: From the last check to the first, for ``t1``: each body adds the fault that comes before.
ORDER_OF_GENERATE: list[tuple[dict[str, Any], int, str]] = [
    ({"format": "xml"}, 500, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema'),
    ({"template": "{{ .X"}, 500, "template: :1: unclosed action"),
    ({"suffix": "s"}, 400, f"{FULL} does not support insert"),
    ({"think": "low"}, 400, '"t1" does not support thinking'),
    ({"raw": True}, 400, RAW),
    ({"model": "nope"}, 404, "model 'nope' not found"),
    ({"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    ({"think": "x"}, 400, THINK_TEXT),
]
ORDER_OF_CHAT: list[tuple[dict[str, Any], int, str]] = [
    ORDER_OF_GENERATE[0],
    ({"tools": [{}]}, 400, f"{FULL} does not support tools"),
    *ORDER_OF_GENERATE[3:4],
    *ORDER_OF_GENERATE[5:],
]


@pytest.mark.parametrize(
    ("request_", "faults"),
    [(generate(stream=False), ORDER_OF_GENERATE), (chat(user("hi"), stream=False), ORDER_OF_CHAT)],
    ids=["generate", "chat"],
)
def test_the_first_failure_wins(
    fake: FakeDaemon,
    request_: tuple[str, dict[str, Any]],
    faults: list[tuple[dict[str, Any], int, str]],
) -> None:
    path, body = request_
    for fault, status, text in faults:
        body = body | fault
        found, _, answer = post(fake, path, body)
        assert (found, answer["error"][: len(text)]) == (status, text)


@pytest.mark.parametrize("model", ["t1", "strange", "unread", "thinks", "qwen35"])
def test_loading_needs_no_prompt(fake: FakeDaemon, model: str) -> None:
    """1.5.6 and 10, 1.6.1 and 7: an unknown renderer is a fault of requests with a prompt only."""
    for keep_alive, reason in ((None, "load"), (0, "unload")):
        body = {"model": model, "keep_alive": keep_alive, "template": "{{ .X", "format": "xml"}
        for path in (CHAT, GENERATE):
            status, media, answer = post(fake, path, body)
            assert (status, media) == (200, JSON), answer
            assert (answer["done"], answer["done_reason"]) == (True, reason)


@pytest.mark.parametrize("value", ['"xml"', "3", "[1]", "true"])
@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_formats_that_are_none(fake: FakeDaemon, path: str, value: str) -> None:
    _, body = chat(user("hi"), stream=False) if path == CHAT else generate(stream=False)
    status, _, answer = post(fake, path, {**body, "format": json.loads(value)})
    assert status == 500
    assert answer["error"] == (
        f'invalid format: {json.dumps(value)}; expected "json" or a valid JSON Schema object'
    )


@pytest.mark.parametrize("fmt", [None, ""])
def test_formats_that_are_absent(fake: FakeDaemon, fmt: Any) -> None:
    for path, body in (chat(user("hi")), generate()):
        start = time.time()
        fake.will(says="ok")
        answer = fake.post(path, {**body, "format": fmt, "stream": False})
        assert answer["done_reason"] == "stop"
        (asked,) = fake.asked("/completion", since=start)
        assert "json_schema" not in asked


def test_a_family_that_takes_one_image_a_message(fake: FakeDaemon) -> None:
    """5.4: in chat the whole conversation counts, in generate the request."""
    fake.add("single", "mllama")
    text = "this model only supports one image while more than one image requested"
    two = user("x", images=[IMAGE, IMAGE])
    fake.post("/api/create", {"model": "single", "from": "single", "template": TL, "stream": False})
    for path, body in (
        chat(two, user("y"), model="single"),
        generate(model="single", images=[IMAGE, IMAGE]),
    ):
        status, _, answer = post(fake, path, {**body, "_debug_render_only": True})
        assert (status, answer) == (400, {"error": text})
    path, body = chat(user("x", images=[IMAGE]), user("y", images=[IMAGE]), model="single")
    answer = fake.post(path, {**body, "_debug_render_only": True})
    assert answer["_debug_info"]["image_count"] == 2


def test_a_template_that_fails_while_it_runs(fake: FakeDaemon) -> None:
    derive(fake, "fails", template="{{ range .Messages }}{{ .Nothing }}{{ end }}")
    for path, body in (chat(user("hi"), model="fails"), generate(model="fails")):
        status, _, answer = post(fake, path, body)
        assert status == 500
        assert "can't evaluate field Nothing in type" in answer["error"]


# --- C5 -------------------------------------------------------------------------------------------

JINJA_TOOLS = "{% if tools %}{{ tools }}{% endif %}{{ messages[0]['content'] }}"
JINJA_TRIP = (
    JINJA_TOOLS
    + "{{ message.tool_calls }}{% if message.role == 'tool' %}<tool_response>{% endif %}"
)
CUSTOM = "CUSTOM {{ .Prompt }}"
GO_THINKS = (
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"
    "{{ .Content }}{{ end }}"
)
GO_TOOLS = (
    "{{ .Tools }}{{ range .Messages }}{{ .Content }}"
    "{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}{{ end }}"
)
GO_TRIP = GO_TOOLS + '{{ range .Messages }}{{ if eq .Role "tool" }}R{{ end }}{{ end }}'


class Row(NamedTuple):
    """``chat`` and ``go``: the template in the weights and that of the layer, "" for none."""

    chat: str
    go: str
    rendered: bool
    able: set[str]
    env: str = ""
    #: Whether generate asks the runner to apply a template; None: as chat does.
    applies: bool | None = None


ROWS = {
    "better": Row(JINJA_TOOLS, CUSTOM, False, {"completion", "tools"}),
    "on": Row(JINJA_TOOLS, CUSTOM, True, {"completion"}, env="1"),
    "off": Row(JINJA_TOOLS, CUSTOM, False, {"completion", "tools"}, env="0"),
    "splits": Row(
        JINJA_TOOLS + "{{ content.split('</think>') }}",
        GO_THINKS,
        False,
        {"completion", "tools", "thinking"},
    ),
    "trip": Row(JINJA_TRIP, GO_TOOLS, False, {"completion", "tools"}),
    "kept": Row(JINJA_TOOLS + "<think></think>", GO_TRIP, True, {"completion", "tools"}),
    "equal": Row("{{ messages[0]['content'] }}", CUSTOM, True, {"completion"}),
    "layer": Row("", CUSTOM, True, {"completion"}),
    "layer-on": Row("", GO_TOOLS, True, {"completion", "tools"}, env="true"),
    # 1.4: no jinja and no layer, or one that is switched off.
    "bare": Row("", "", False, {"completion"}, applies=False),
    "layer-off": Row("", CUSTOM, False, {"completion"}, env="0", applies=False),
    "jinja": Row(JINJA_TOOLS, "", False, {"completion", "tools"}),
    "jinja-on": Row(JINJA_TOOLS, "", False, {"completion", "tools"}, env="1"),
}


@pytest.fixture(scope="module")
def daemons(
    fake_daemon: FakeDaemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, FakeDaemon]]:
    """One for each setting of OLLAMA_GO_TEMPLATE; those that are needed beside the shared one."""
    home = tmp_path_factory.mktemp("switched")
    with (
        running_fake(home / "on", OLLAMA_GO_TEMPLATE="1") as on,
        running_fake(home / "off", OLLAMA_GO_TEMPLATE="0") as off,
    ):
        yield {"": fake_daemon, "1": on, "true": on, "0": off}


@pytest.mark.parametrize("name", ROWS)
def test_who_makes_the_prompts(fake: FakeDaemon, daemons: dict[str, FakeDaemon], name: str) -> None:
    row = ROWS[name]
    daemon = daemons[row.env]
    model = f"path-{name}"
    keys = {"tokenizer__chat_template": row.chat} if row.chat else {}
    daemon.add(f"{model}-base", **keys)
    made = {"model": model, "from": f"{model}-base", "stream": False}
    daemon.post("/api/create", made | ({"template": row.go} if row.go else {}))
    daemon.will(says="fine")

    shown = daemon.post("/api/show", {"model": model})
    assert set(shown["capabilities"]) == row.able
    go = row.go or "{{ .Prompt }}"
    assert shown["template"] == (row.chat if row.chat and not row.rendered else go)

    start = time.time()
    path, body = chat(user("hi"), model=model, stream=False)
    assert daemon.post(path, body)["message"]["content"] == "fine"
    asked = {
        endpoint: len(daemon.asked(endpoint, since=start))
        for endpoint in ("/completion", "/v1/chat/completions")
    }
    assert asked == {"/completion": int(row.rendered), "/v1/chat/completions": not row.rendered}

    start = time.time()
    path, body = generate(model=model, stream=False)
    assert daemon.post(path, body)["response"] == "fine"
    applies = not row.rendered if row.applies is None else row.applies
    assert len(daemon.asked("/apply-template", since=start)) == applies
    (sent,) = daemon.asked("/completion", since=start)
    own = {CUSTOM: "CUSTOM hi", GO_TOOLS: "[]hi", GO_TRIP: "[]hi", "": "hi"}
    assert sent["prompt"] == ("user: hi" if applies else own[row.go])

    (runner,) = [
        line for line in (r.cmdline() for r in daemon.runners()) if _weights(daemon, model) in line
    ]
    assert ("--chat-template" in runner) is row.rendered
    assert ("chatml" in runner) is row.rendered
    assert daemon.post(path, {"model": model, "keep_alive": 0})["done_reason"] == "unload"


def _weights(daemon: FakeDaemon, model: str) -> str:
    """The path of a model's weights, as its runner is told."""
    modelfile = daemon.post("/api/show", {"model": model})["modelfile"]
    (line,) = [line for line in modelfile.splitlines() if line.startswith("FROM ")]
    return str(Path(line.removeprefix("FROM ")))


@pytest.mark.parametrize(
    ("fields", "arch"),
    [
        ({"renderer": "qwen3-coder"}, "llama"),
        ({"parser": "qwen3-coder"}, "llama"),
        ({"parser": "nope"}, "llama"),
        (
            {"template": "{{ range .Messages }}<|start|>{{ .Content }}<|end|>{{ end }}"},
            "gptoss",
        ),
    ],
    ids=["renderer", "parser", "unknown parser", "harmony"],
)
def test_what_is_always_rendered(
    daemons: dict[str, FakeDaemon], fields: dict[str, str], arch: str
) -> None:
    """1.4: whatever the switch says, and though a chat template with tools is there."""
    daemon = daemons["0"]
    name = "always-" + "".join(c for c in repr(sorted(fields.items()))[:30] if c.isalnum())
    daemon.add(f"{name}-base", arch, tokenizer__chat_template=JINJA_TRIP)
    daemon.post("/api/create", {"model": name, "from": f"{name}-base", "stream": False, **fields})
    daemon.will(says="fine")
    start = time.time()
    for path, body in (chat(user("hi"), model=name), generate(model=name)):
        daemon.post(path, {**body, "stream": False})
    assert len(daemon.asked("/completion", since=start)) == 2
    assert daemon.asked("/apply-template", since=start) == []
    assert daemon.post("/api/show", {"model": name})["template"] != JINJA_TRIP
    (runner,) = [
        line for line in (r.cmdline() for r in daemon.runners()) if _weights(daemon, name) in line
    ]
    assert "--chat-template" in runner
    daemon.post(GENERATE, {"model": name, "keep_alive": 0})


def test_a_request_of_its_own_template_on_the_native_path(fake: FakeDaemon) -> None:
    """1.6.9: it takes the place of the chat template, the truncation and the image tags."""
    fake.add("native", tokenizer__chat_template=JINJA_TOOLS)
    fake.will(says="fine")
    start = time.time()
    path, body = generate(model="native", template="<{{ .System }}|{{ .Prompt }}>", system="S")
    fake.post(path, {**body, "stream": False})
    (sent,) = fake.asked("/completion", since=start)
    assert sent["prompt"] == "<S|hi>"
    assert fake.asked("/apply-template", since=start) == []
