"""Answers to prompts that the daemon makes itself, as clients get them: reasoning in generate,
formats that wait, probabilities, what is cut. Runners are stand-ins. prompting.md 1.6 to 1.8."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from support.fake import JINJA, FakeDaemon

CHAT, GENERATE = "/api/chat", "/api/generate"
THINKS = (
    "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"
    "{{ .Content }}{{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}"
    '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}'
    "</tool_call>{{ end }}{{ end }}{{ .Tools }}"
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f"}}
CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'


@pytest.fixture(scope="module", autouse=True)
def models(fake_daemon: FakeDaemon) -> None:
    """``thinker`` has a template with reasoning and calls, ``coder`` a parser that thinks; of
    ``nativist`` and ``splitter`` the runner makes the prompts; ``plain`` does nothing of it."""
    fake_daemon.add("bones")
    fake_daemon.add("nativist", tokenizer__chat_template=JINJA)
    splits = "{{ m.content.split('</think>')[-1] }}"
    fake_daemon.add("splitter", tokenizer__chat_template=splits)
    for name, fields in {
        "thinker": {"template": THINKS},
        "coder": {"renderer": "qwen3.5", "parser": "qwen3.5"},
        "plain": {"template": "{{ range .Messages }}{{ .Content }}\n{{ end }}"},
    }.items():
        made = {"model": name, "from": "bones", "stream": False, **fields}
        fake_daemon.post("/api/create", made)


def asked(daemon: FakeDaemon, path: str, **body: Any) -> tuple[dict[str, Any], list[Any]]:
    """The whole answer, and what the runner was asked for it."""
    start = time.time()
    answer = daemon.post(path, {"stream": False, **body})
    return answer, daemon.asked("/completion", since=start)


def talk(model: str, content: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("thinker", "<think>\nhm hm</think>\n\nFine day"),
        ("coder", "hm hm</think>\n\nFine day"),
        ("nativist", "<think>\nhm hm</think>\n\nFine day"),
        ("splitter", "<think>\nhm hm</think>\n\nFine day"),
    ],
)
@pytest.mark.parametrize("think", [None, True, "low"])
def test_generate_tells_reasoning_from_the_answer(
    fake: FakeDaemon, model: str, says: str, think: Any
) -> None:
    fake.will(says=says)
    body = {"model": model, "prompt": "hi", "think": think}
    answer, (sent,) = asked(fake, GENERATE, **body)
    assert (answer["thinking"], answer["response"]) == ("hm hm", "Fine day")
    words = (sent["prompt"] + says).split()
    assert answer["context"] == [len(word) for word in words]
    events = list(fake.stream(GENERATE, body))
    assert "".join(e.get("thinking", "") for e in events) == "hm hm"
    assert "".join(e["response"] for e in events) == "Fine day"
    assert all(e["response"] or e.get("thinking") for e in events[:-1])
    assert events[-1]["context"] == answer["context"]
    assert "context" not in events[0]


@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_reasoning_that_was_not_wanted_stays_where_the_model_put_it(
    fake: FakeDaemon, path: str
) -> None:
    says = "<think>hm</think>x"
    fake.will(says=says)
    body = talk("thinker") if path == CHAT else {"model": "thinker", "prompt": "hi"}
    answer, _ = asked(fake, path, think=False, **body)
    said = answer.get("message", answer)
    assert said.get("content", said.get("response")) == says
    assert "thinking" not in said


def test_a_raw_prompt(fake: FakeDaemon) -> None:
    fake.will(says="<think>hm</think>x")
    body = {"model": "thinker", "prompt": "<raw>", "raw": True}
    answer, (sent,) = asked(fake, GENERATE, **body)
    assert sent["prompt"] == "<raw>"
    assert (answer["thinking"], answer["response"]) == ("hm", "x")
    assert "context" not in answer
    # The named parser knows nothing of this prompt.
    fake.will(says="hm</think>x")
    answer, _ = asked(fake, GENERATE, **{**body, "model": "coder"})
    assert answer["response"] == "hm</think>x"
    assert "thinking" not in answer


def test_calls_that_generate_was_not_asked_for(fake: FakeDaemon) -> None:
    """1.6.12: no generic parser of calls in generate."""
    fake.will(says=f"ok {CALL}")
    answer, _ = asked(fake, GENERATE, model="thinker", prompt="hi")
    assert answer["response"] == f"ok {CALL}"
    assert "tool_calls" not in answer


def _xml_call(name: str, value: str) -> str:
    parameter = f"<parameter=x>\n{value}\n</parameter>"
    return f"<tool_call>\n<function={name}>\n{parameter}\n</function>\n</tool_call>"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("cut", [1, 1000])
def test_calls_in_generate_come_last_and_all(fake: FakeDaemon, stream: bool, cut: int) -> None:
    """http-api.md 8.8, 9.4: a named parser finds them though nobody offered tools."""
    says = f"hm</think>\n\nFine{_xml_call('f', '1')}{_xml_call('g', '2')}"
    fake.will(says=says, cut=cut)
    body = {"model": "coder", "prompt": "hi", "stream": stream}
    *events, last = fake.stream(GENERATE, body)
    assert bool(events) is stream
    assert all(e["response"] or e.get("thinking") for e in events)
    assert not any("tool_calls" in e for e in events)
    assert "".join(e["response"] for e in (*events, last)).strip() == "Fine"
    assert last["done"] is True
    assert last["tool_calls"] == [
        {"function": {"index": 0, "name": "f", "arguments": {"x": "1"}}},
        {"function": {"index": 1, "name": "g", "arguments": {"x": "2"}}},
    ]


@pytest.mark.parametrize("path", [CHAT, GENERATE])
@pytest.mark.parametrize("stream", [True, False])
def test_a_format_after_reasoning(fake: FakeDaemon, path: str, stream: bool) -> None:
    # A runner begins anew with texts that it has not been told before.
    fake.will(says=[f"<think>hmm</think>\n\nFree {path} {stream}", '{"a": 1}'], cut=1)
    body = talk("thinker") if path == CHAT else {"model": "thinker", "prompt": "hi"}
    body |= {"format": SCHEMA, "options": {"num_predict": 100}}
    start = time.time()
    events = list(fake.stream(path, {**body, "stream": stream}))
    assert len(events) > 1 or not stream
    said = [e.get("message", e) for e in events]
    assert "".join(s.get("thinking", "") for s in said) == "hmm"
    assert "".join(s.get("content", s.get("response", "")) for s in said) == '{"a": 1}'
    last = events[-1]
    assert (last["done"], last["done_reason"]) == (True, "stop")
    head = "<think>hmm</think>\n\n"
    assert last["eval_count"] == len(head) + len('{"a": 1}')
    first, second = fake.asked("/completion", since=start)
    assert second["prompt"] == first["prompt"] + head
    assert (first["n_predict"], second["n_predict"]) == (100, 100 - len(head))
    if path == GENERATE:
        words = (second["prompt"] + '{"a": 1}').split()
        assert last["context"] == [len(word) for word in words]


def test_the_limit_ends_the_second_pass(fake: FakeDaemon) -> None:
    fake.will(says=["<think>hmm</think>x", "{" + " " * 30], cut=1)
    options = {"num_predict": 20}
    _, (first, second) = asked(fake, CHAT, **talk("thinker", format=SCHEMA, options=options))
    assert (first["n_predict"], second["n_predict"]) == (20, 2)


def test_a_format_with_tools(fake: FakeDaemon) -> None:
    body = talk("thinker", format=SCHEMA, tools=[TOOL], think=False)
    fake.will(says=f"{CALL}\n")
    answer, (sent,) = asked(fake, CHAT, **body)
    (call,) = answer["message"]["tool_calls"]
    assert call["function"] == {"index": 0, "name": "f", "arguments": {"x": 1}}
    assert answer["message"]["content"].strip() == ""
    assert "json_schema" not in sent
    assert sent["preserved_tokens"] == ["<tool_call>"]
    fake.will(says=["Free", '{"a": 1}'])
    answer, (_, sent) = asked(fake, CHAT, **body)
    assert answer["message"] == {"role": "assistant", "content": '{"a": 1}'}
    assert "json_schema" in sent


def test_calls_have_their_own_ids_and_numbers(fake: FakeDaemon) -> None:
    fake.will(says=f"<think>hm</think>{CALL}{CALL}")
    answer, _ = asked(fake, CHAT, **talk("thinker", tools=[TOOL]))
    calls = answer["message"]["tool_calls"]
    assert [call["function"]["index"] for call in calls] == [0, 1]
    assert len({call["id"] for call in calls}) == 2
    assert answer["message"]["thinking"] == "hm"


def test_without_tools_a_call_is_text(fake: FakeDaemon) -> None:
    fake.will(says=CALL)
    answer, (sent,) = asked(fake, CHAT, **talk("thinker"))
    assert answer["message"]["content"] == CALL
    assert "preserved_tokens" not in sent


@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_every_token_has_its_probability(fake: FakeDaemon, path: str) -> None:
    """Also those that only were tags: none is lost or told twice."""

    def event(token: str) -> str:
        probability = {"token": token, "logprob": -0.5, "top_logprobs": []}
        fields = {"content": token, "stop": False, "completion_probabilities": [probability]}
        return f"data: {json.dumps(fields)}\n\n"

    tokens = ["<thi", "nk>", "hm", "</", "think>", "\n\n", "Fine", " day"]
    fake.will(
        events=[*map(event, tokens), 'data: {"content":"","stop":true,"stop_type":"eos"}\n\n']
    )
    body = talk("thinker") if path == CHAT else {"model": "thinker", "prompt": "hi"}
    events = list(fake.stream(path, {**body, "logprobs": True}))
    assert [entry["token"] for e in events for entry in e.get("logprobs", ())] == tokens
    whole, (sent,) = asked(fake, path, **body, logprobs=True, top_logprobs=3)
    assert sent["n_probs"] == 3
    assert [entry["token"] for entry in whole["logprobs"]] == tokens


def test_what_does_not_fit_is_told(fake: FakeDaemon) -> None:
    fake.will(says="ok")
    options = {"num_ctx": 32}
    messages = [{"role": "user", "content": f"m{n} " + "word " * 9} for n in range(8)]
    messages[1]["role"] = "system"
    body = {"model": "plain", "options": options, "messages": messages}
    answer, (sent,) = asked(fake, CHAT, **body)
    assert [line[:2] for line in sent["prompt"].split("\n") if line] == ["m1", "m6", "m7"]
    assert answer["prompt_truncated"] == 50
    assert "the conversation was cut to fit the context" in fake.log
    answer, (sent,) = asked(fake, CHAT, **{**body, "truncate": False})
    assert all(f"m{n} " in sent["prompt"] for n in range(8))
    assert "prompt_truncated" not in answer


@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_a_last_message_that_is_too_long(fake: FakeDaemon, path: str) -> None:
    """1.7: its middle goes, unless the context must not be shifted."""
    fake.will(says="ok")
    text = "word " * 99 + "end"
    body = talk("plain", text) if path == CHAT else {"model": "plain", "prompt": text}
    body["options"] = {"num_ctx": 32, "num_keep": 8}
    answer, (sent,) = asked(fake, path, **body)
    assert sent["prompt"] == [4] * 19 + [3]
    assert answer["prompt_truncated"] == 80
    status, _, data = fake.request("POST", path, {**body, "shift": False})
    assert status == 400
    assert json.loads(data)["error"] == (
        "the prompt is longer than the context length currently available to the model; shorten "
        "the prompt, adjust the context length in settings, or use a model with a longer context "
        "length"
    )
    answer, (sent,) = asked(fake, path, **{**body, "truncate": False, "shift": False})
    assert sent["prompt"].split() == text.split()


@pytest.mark.parametrize("adds", [True, False])
def test_the_bos_that_the_tokenizer_adds(fake: FakeDaemon, adds: bool) -> None:
    name = f"begins-{adds}".lower()
    fake.add(f"{name}-base", tokenizer__ggml__add_bos_token=adds)
    template = "<bos><bos>{{ .Prompt }}"
    fake.post(
        "/api/create",
        {"model": name, "from": f"{name}-base", "template": template, "stream": False},
    )
    fake.will(says="ok")
    start = "<bos>" if adds else "<bos><bos>"
    assert asked(fake, CHAT, **talk(name))[1][0]["prompt"] == f"{start}hi"
    assert asked(fake, GENERATE, model=name, prompt="hi")[1][0]["prompt"] == f"{start}hi"
    raw = asked(fake, GENERATE, model=name, prompt="<bos>x", raw=True)[1][0]["prompt"]
    assert raw == ("x" if adds else "<bos>x")


@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_images_on_the_wire(fake: FakeDaemon, path: str) -> None:
    """1.7: the runner's own marker for the tag; a client that writes a tag gets no second one."""
    fake.will(says="ok")
    content = "a [img] b [img-0]"
    if path == CHAT:
        body = {
            "model": "plain",
            "messages": [{"role": "user", "content": content, "images": ["QUJD"]}],
        }
    else:
        body = {"model": "plain", "prompt": content, "images": ["QUJD"]}
    _, (sent,) = asked(fake, path, **body)
    before, marker, after = sent["prompt"]["prompt_string"].partition(">")
    assert (before[:2], after) == ("a ", " b [img-0]\n")
    assert before[2:].startswith("<__")
    assert marker == ">"
    assert sent["prompt"]["multimodal_data"] == ["QUJD"]
