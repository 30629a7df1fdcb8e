"""Tools, reasoning, structured output and pictures through Ollama's official Python SDK, unchanged.

Every conversation runs four ways: sync and async, whole and streamed. Where the words of the answer
matter, the stand-in runner plays them back; the others come from SmolLM2.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import ollama
import pytest
from pydantic import BaseModel, Field
from support.daemon import Daemon
from support.fake import FakeDaemon, model_file, running_fake
from support.models import smollm2
from support.sdk_ways import WAYS, Ask, Turn, async_streamed, streamed
from support.vision import BLUE, RED, TOKENS_PER_IMAGE, png, tiny_projector

#: A model that reasons and calls tools, told how to think in its prompt.
TEMPLATE = """{{- range .Tools }}tool {{ . }}
{{ end }}
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}
{{- if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>{{ end }}{{ if .ToolName }} (from {{ .ToolName }}){{ end }}<|im_end|>
{{ end }}{{ if .IsThinkSet }}effort={{ if .Think }}{{ .ThinkLevel }}{{ else }}none{{ end }}
{{ end }}<|im_start|>assistant
"""
LEVELS = (
    "<|start|>system<|message|>effort={{ .ThinkLevel }}<|end|>"
    "{{ range .Messages }}<|start|>{{ .Role }}<|message|>{{ .Content }}<|end|>{{ end }}"
    "<|start|>assistant"
)
CHATML = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return WAYS[request.param]


# --- models whose words are played back -----------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDaemon]:
    """Models ``thinker``, ``leveller`` (gpt-oss), ``plain`` and ``seer``, which has an eye."""
    home = tmp_path_factory.mktemp("stage")
    with running_fake(home / "home", OLLAMA_MAX_LOADED_MODELS="9") as daemon:
        daemon.add("base")
        daemon.add("oss-base", arch="gptoss")
        eye = _uploaded(daemon, tiny_projector(home / "eye.gguf"))
        text = _uploaded(daemon, model_file(home, "seer"))
        for made in (
            {"model": "thinker", "from": "base", "template": TEMPLATE},
            {"model": "leveller", "from": "oss-base", "template": LEVELS},
            {"model": "plain", "from": "base", "template": CHATML},
            {"model": "seer", "files": {"t.gguf": text, "eye.gguf": eye}, "template": CHATML},
        ):
            daemon.post("/api/create", {**made, "stream": False})
        yield daemon


@pytest.fixture
def fake(stage: FakeDaemon) -> Iterator[FakeDaemon]:
    """The same, with runners that do what ``fake.will`` says until the end of the test."""
    yield stage
    stage.will()


def _uploaded(daemon: Daemon, path: Path) -> str:
    data = path.read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    status, _, answer = daemon.request("POST", f"/api/blobs/{digest}", data)
    assert status in (200, 201), answer
    return digest


def _prompts(fake: FakeDaemon) -> list[Any]:
    return [body["prompt"] for body in fake.asked("/completion")]


def _said(thinking: str = "", content: str = "", *calls: tuple[str, dict[str, Any]]) -> str:
    """What the thinker generates for that."""
    reasoning = f"<think>\n{thinking}</think>\n\n" if thinking else ""
    lines = [json.dumps({"name": name, "arguments": given}) for name, given in calls]
    called = "<tool_call>\n" + "\n".join(lines) + "\n</tool_call>" if calls else ""
    return reasoning + content + called


_SCENES = itertools.count()


def _will_say(fake: FakeDaemon, *texts: str, cut: int = 3) -> None:
    """These in turn, from the first one on: a list that it knows the stand-in would go on with."""
    fake.will(says=[*texts, f"nothing more in scene {next(_SCENES)}"], cut=cut)


# --- tools ----------------------------------------------------------------------------------------


def stock(item: str, shops: int = 1, strict: bool = False) -> str:
    """How many of an item there are

    Args:
      item: What to count
      shops: Number of shops to look in
      strict: Whether to leave out damaged ones

    Returns:
      A sentence
    """
    assert (type(item), type(shops), type(strict)) == (str, int, bool)
    return f"{7 * shops} {item}"


def price(item: str) -> float:
    """Price of an item

    Args:
      item: What to price
    """
    return len(item) / 2


TOOLS: dict[str, Callable[..., Any]] = {"stock": stock, "price": price}
#: The SDK calls every parameter required that cannot be None, whatever its default.
STOCK = {
    "type": "function",
    "function": {
        "name": "stock",
        "description": "How many of an item there are",
        "parameters": {
            "type": "object",
            "required": ["item", "shops", "strict"],
            "properties": {
                "item": {"type": "string", "description": "What to count"},
                "shops": {"type": "integer", "description": "Number of shops to look in"},
                "strict": {
                    "type": "boolean",
                    "description": "Whether to leave out damaged ones",
                },
            },
        },
    },
}
QUESTION = {"role": "user", "content": "How many pears?"}


def _results(turn: Turn) -> list[dict[str, Any]]:
    """The messages with what the called tools return."""
    return [
        {
            "role": "tool",
            "tool_name": call.function.name,
            "content": str(TOOLS[call.function.name](**call.function.arguments)),
        }
        for call in turn.calls
    ]


def test_a_function_a_dict_and_a_tool_object_are_the_same_tool(fake: FakeDaemon, ask: Ask) -> None:
    fake.will(says=_said("Count.", "", ("stock", {"item": "pears", "shops": 2, "strict": True})))
    for tool in (stock, STOCK, ollama.Tool.model_validate(STOCK)):
        asked = {"model": "thinker", "messages": [QUESTION], "tools": [tool]}
        turn = ask(fake.url, **asked)
        assert (turn.thinking, turn.content) == ("Count.", "")
        assert [m["content"] for m in _results(turn)] == ["14 pears"]
        first, *_ = _prompts(fake)[-1].splitlines()
        assert first.startswith("tool {")
        assert json.loads(first.removeprefix("tool ")) == STOCK
    one, two, three = _prompts(fake)[-3:]
    assert one == two == three


@pytest.mark.parametrize("cut", [3, 1000])
def test_several_calls_of_one_answer(fake: FakeDaemon, ask: Ask, cut: int) -> None:
    calls = [
        ("stock", {"item": "pears"}),
        ("price", {"item": "pears"}),
        ("stock", {"item": "figs"}),
    ]
    _will_say(fake, _said("All at once.", "Looking. ", *calls), "Seven each.", cut=cut)
    tools = TOOLS.values()
    turn = ask(fake.url, model="thinker", messages=[QUESTION], tools=tools)
    assert [(c.function.name, c.function.arguments) for c in turn.calls] == calls
    assert turn.content.strip() == "Looking."
    results = _results(turn)
    assert [m["content"] for m in results] == ["7 pears", "2.5", "7 figs"]
    history = [QUESTION, turn.message(), *results]
    last = ask(fake.url, model="thinker", messages=history, tools=tools)
    assert (last.content, last.calls) == ("Seven each.", [])
    prompt = _prompts(fake)[-1]
    told = ["7 pears (from stock)", "2.5 (from price)", "7 figs (from stock)"]
    assert sorted(told, key=prompt.index) == told
    for name, given in calls:
        arguments = json.dumps(given, separators=(",", ":"))
        assert f'{{"name": "{name}", "arguments": {arguments}}}' in prompt


def test_a_loop_until_no_tool_is_called(fake: FakeDaemon, ask: Ask) -> None:
    _will_say(
        fake,
        _said("First the stock.", "", ("stock", {"item": "pears", "shops": 3})),
        _said("Now the price.", "One more. ", ("price", {"item": "pears"})),
        _said("Enough.", "21 pears at 2.5."),
    )
    history: list[Any] = [QUESTION]
    turns: list[Turn] = []
    while not turns or turns[-1].calls:
        asked = {"model": "thinker", "messages": history, "tools": [stock, price], "think": True}
        turns.append(ask(fake.url, **asked))
        # A client gives back the SDK's own message, or the parts that it gathered.
        whole = turns[-1].parts[0].message
        history.append(whole if len(turns[-1].parts) == 1 else turns[-1].message())
        history += _results(turns[-1])
        assert len(turns) < 4
    assert [t.thinking for t in turns] == ["First the stock.", "Now the price.", "Enough."]
    assert [t.content.strip() for t in turns] == ["", "One more.", "21 pears at 2.5."]
    prompt = _prompts(fake)[-1]
    story = [
        "How many pears?",
        "<think>First the stock.</think>",
        '"arguments": {"item":"pears","shops":3}',
        "21 pears (from stock)",
        "<think>Now the price.</think>One more.",
        '"arguments": {"item":"pears"}',
        "2.5 (from price)",
    ]
    assert all(prompt.count(step) == 1 for step in story)
    assert sorted(story, key=prompt.index) == story


@pytest.mark.parametrize("way", [streamed, async_streamed])
def test_a_stream_has_reasoning_then_text_then_calls(fake: FakeDaemon, way: Ask) -> None:
    call = ("stock", {"item": "pears"})
    fake.will(says=_said("Let me look it up.", "A moment, please.", call), cut=4)
    turn = way(fake.url, model="thinker", messages=[QUESTION], tools=[stock], think=True)
    kinds = []
    for part in turn.parts:
        m = part.message
        assert bool(m.thinking) + bool(m.content) + bool(m.tool_calls) + bool(part.done) == 1
        kinds.append("t" if m.thinking else "c" if m.content else "!" if m.tool_calls else ".")
    assert "".join(kinds).lstrip("t").lstrip("c") == "!."
    assert kinds.count("t") > 3
    assert kinds.count("c") > 3
    assert turn.thinking == "Let me look it up."
    assert turn.content == "A moment, please."


def test_tools_are_refused_by_a_model_that_has_no_place_for_them(
    fake: FakeDaemon, ask: Ask
) -> None:
    with pytest.raises(ollama.ResponseError, match="does not support tools") as error:
        ask(fake.url, model="plain", messages=[QUESTION], tools=[stock])
    assert error.value.status_code == 400


# --- reasoning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("think", "effort"),
    [(None, "medium"), (True, "medium"), (False, "none"), ("low", "low"), ("high", "high")],
)
def test_reasoning_on_off_and_so_much(fake: FakeDaemon, ask: Ask, think: Any, effort: str) -> None:
    fake.will(says=_said("" if think is False else "Hm.", "Yes."))
    turn = ask(fake.url, model="thinker", messages=[QUESTION], think=think)
    assert (turn.thinking, turn.content) == ("" if think is False else "Hm.", "Yes.")
    assert f"effort={effort}\n" in _prompts(fake)[-1]
    generated = ollama.Client(host=fake.url).generate("thinker", "Well?", think=think)
    assert (generated.thinking or "", generated.response) == (turn.thinking, "Yes.")
    assert f"effort={effort}\n" in _prompts(fake)[-1]


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_levels_of_gpt_oss(fake: FakeDaemon, ask: Ask, level: Any) -> None:
    fake.will(
        says="<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
        "<|message|>Yes."
    )
    turn = ask(fake.url, model="leveller", messages=[QUESTION], think=level)
    assert (turn.thinking, turn.content) == ("Hm.", "Yes.")
    assert f"effort={level}<|end|>" in _prompts(fake)[-1]


def test_a_model_that_does_not_reason_says_so(fake: FakeDaemon, ask: Ask) -> None:
    with pytest.raises(ollama.ResponseError, match="does not support thinking") as error:
        ask(fake.url, model="plain", messages=[QUESTION], think=True)
    assert error.value.status_code == 400
    fake.will(says="Yes.")
    assert ask(fake.url, model="plain", messages=[QUESTION], think=False).content == "Yes."


# --- structured output ----------------------------------------------------------------------------


class Size(BaseModel, extra="forbid"):
    height: int = Field(ge=1, le=99)
    unit: Literal["cm", "m"]


class Plant(BaseModel, extra="forbid"):
    name: str = Field(max_length=12)
    kind: Literal["tree", "flower"]
    size: Size
    colours: list[Literal["green", "red"]] = Field(min_length=1, max_length=2)
    origin: str | None = Field(max_length=12)


@pytest.mark.parametrize("think", [True, False])
def test_a_format_with_and_without_reasoning(fake: FakeDaemon, ask: Ask, think: bool) -> None:
    rose = '{"height": 5, "unit": "cm"}'
    _will_say(fake, *([_said("Hm.", "Five."), rose] if think else [rose]))
    schema = Size.model_json_schema()
    turn = ask(fake.url, model="thinker", messages=[QUESTION], format=schema, think=think)
    assert Size.model_validate_json(turn.content) == Size(height=5, unit="cm")
    assert turn.thinking == ("Hm." if think else "")
    sent = fake.asked("/completion")[-1]["json_schema"]
    assert {**sent, **schema} == sent


# --- pictures -------------------------------------------------------------------------------------


def _pictures(folder: Path) -> dict[str, Any]:
    """The ways to give a picture to the SDK."""
    path = folder / "red.png"
    path.write_bytes(png(RED))
    encoded = base64.b64encode(png(RED)).decode()
    return {
        "path as text": str(path),
        "path": path,
        "bytes": png(RED),
        "base64": encoded,
        "image": ollama.Image(value=path),
    }


def test_a_picture_from_anywhere_is_the_same_picture(
    fake: FakeDaemon, ask: Ask, tmp_path: Path
) -> None:
    fake.will(says="Red.")
    encoded = base64.b64encode(png(RED)).decode()
    for given in _pictures(tmp_path).values():
        message = {"role": "user", "content": "What is it?", "images": [given]}
        assert ask(fake.url, model="seer", messages=[message]).content == "Red."
        chatted = _prompts(fake)[-1]
        assert chatted["multimodal_data"] == [encoded]
        client = ollama.Client(host=fake.url)
        assert client.generate("seer", "What is it?", images=[given]).response == "Red."
        assert _prompts(fake)[-1] == chatted


def test_what_is_no_picture_is_refused(fake: FakeDaemon, ask: Ask) -> None:
    message = {"role": "user", "content": "What is it?", "images": [b"not a picture"]}
    with pytest.raises(ollama.ResponseError, match="cannot read image 1 of 1") as error:
        ask(fake.url, model="seer", messages=[message])
    assert error.value.status_code == 400


# --- with a real model ----------------------------------------------------------------------------

OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 200, "num_ctx": 1024, "num_thread": 1}


@pytest.fixture(scope="module")
def seeing(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    """Has ``eye``, too: SmolLM2 that sees."""
    files = {
        "text.gguf": _uploaded(daemon, smollm2()),
        "eye.gguf": _uploaded(daemon, tiny_projector(tmp_path_factory.mktemp("eye") / "eye.gguf")),
    }
    daemon.post("/api/create", {"model": "eye", "files": files, "stream": False})
    return daemon


def test_an_answer_of_a_class(daemon: Daemon, ask: Ask) -> None:
    message = {"role": "user", "content": "Describe a plant as JSON."}
    asked = {"model": "smollm2", "messages": [message], "options": OPTIONS}
    turn = ask(daemon.url, format=Plant.model_json_schema(), **asked)
    Plant.model_validate_json(turn.content)


def test_an_answer_of_any_json(daemon: Daemon, ask: Ask) -> None:
    shown = [
        {"role": "user", "content": "Describe a rose as JSON."},
        {"role": "assistant", "content": '{"name": "rose", "kind": "flower"}'},
        {"role": "user", "content": "Describe an oak as JSON."},
    ]
    turn = ask(daemon.url, model="smollm2", messages=shown, format="json", options=OPTIONS)
    assert turn.parts[-1].done_reason == "stop"
    assert isinstance(json.loads(turn.content), dict)


def test_pictures_reach_the_model(seeing: Daemon, ask: Ask) -> None:
    def tokens(*images: bytes) -> int:
        message = {"role": "user", "content": "What is it?", "images": images}
        options = {**OPTIONS, "num_predict": 3}
        turn = ask(seeing.url, model="eye", messages=[message], options=options)
        assert turn.content
        return turn.parts[-1].prompt_eval_count or 0

    assert tokens(png(RED), png(BLUE)) == tokens(png(RED)) + TOKENS_PER_IMAGE


def test_a_picture_and_a_format(seeing: Daemon, ask: Ask) -> None:
    message = {"role": "user", "content": "How big is it?", "images": [png(BLUE)]}
    asked = {"model": "eye", "messages": [message], "options": OPTIONS}
    turn = ask(seeing.url, format=Size.model_json_schema(), **asked)
    Size.model_validate_json(turn.content)
