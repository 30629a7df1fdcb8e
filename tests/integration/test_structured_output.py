"""Answers that obey a JSON schema, by a real model, on both ways to its prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.daemon import Daemon, running
from support.models import smollm2

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": ["cat", "dog", "bird"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tame": {"type": "boolean"},
        "owner": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 12},
                "city": {"type": ["string", "null"], "maxLength": 12},
            },
            "required": ["name", "city"],
            "additionalProperties": False,
        },
        "toys": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {"color": {"enum": ["red", "green"]}},
                "required": ["color"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["kind", "age", "tame", "owner", "toys"],
    "additionalProperties": False,
}

TEMPLATE = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)


@pytest.fixture(scope="module", params=["0", "1"], ids=["chat template", "Go template"])
def own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """SmolLM2 by its own chat template, and by the Go template that its import detects."""
    home = tmp_path_factory.mktemp("structured")
    with running(home, {"OLLAMA_GO_TEMPLATE": request.param}) as daemon:
        daemon.create("smollm2", smollm2())
        yield daemon


def _obeys(text: str) -> None:
    pet = json.loads(text)
    assert list(pet) == ["kind", "age", "tame", "owner", "toys"]
    assert pet["kind"] in ("cat", "dog", "bird")
    assert type(pet["age"]) is int
    assert type(pet["tame"]) is bool
    assert set(pet["owner"]) == {"name", "city"}
    assert 1 <= len(pet["owner"]["name"]) <= 12
    assert pet["owner"]["city"] is None or len(pet["owner"]["city"]) <= 12
    assert 1 <= len(pet["toys"]) <= 3
    assert all(set(toy) == {"color"} and toy["color"] in ("red", "green") for toy in pet["toys"])


def _ask(daemon: Daemon, **fields: Any) -> dict[str, Any]:
    asked = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Describe a pet as JSON."}],
        "format": SCHEMA,
        "stream": False,
        **fields,
    }
    answer: dict[str, Any] = daemon.post("/api/chat", asked)
    return answer


def test_a_schema_is_obeyed_fifty_times_of_fifty(own: Daemon) -> None:
    for seed in range(25):
        options = {"seed": seed, "temperature": 1.0, "num_predict": 400}
        answer = _ask(own, options=options)
        assert answer["done_reason"] == "stop"
        _obeys(answer["message"]["content"])


@pytest.mark.parametrize("own", ["1"], indirect=True)
def test_a_format_beside_tools(own: Daemon) -> None:
    """Neither is lost: an answer has the format, and a call would still be one."""
    function = {"name": "look_up", "description": "", "parameters": {"type": "object"}}
    tooled = {"model": "smollm2-tools", "from": "smollm2", "stream": False}
    tooled["template"] = TEMPLATE + "{{ if .Tools }}{{ end }}"
    own.post("/api/create", tooled)
    tools = [{"type": "function", "function": function}]
    options = {"seed": 3, "num_predict": 400}
    answer = _ask(own, model="smollm2-tools", tools=tools, options=options)
    _obeys(answer["message"]["content"])


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_a_schema_that_cannot_be_compiled(own: Daemon, path: str) -> None:
    asked = {"model": "smollm2", "format": {"type": "nonsense"}, "prompt": "x"}
    asked["messages"] = [{"role": "user", "content": "x"}]
    status, _, body = own.request("POST", path, asked)
    assert status == 400
    assert json.loads(body)["error"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "["},
        {"type": "string", "pattern": "^(?=a)a+$"},
        {"type": "object", "patternProperties": {"[": {}}},
        {"type": "object", "required": "a"},
        {"type": "string", "minLength": 5, "maxLength": 1},
        {"type": "string", "pattern": "^a{3,1}$"},
    ],
    ids=str,
)
def test_a_schema_that_the_runner_would_drop(own: Daemon, path: str, schema: Any) -> None:
    wanted = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    asked = {"model": "smollm2", "format": wanted, "prompt": "x", "options": {"num_predict": 5}}
    asked["messages"] = [{"role": "user", "content": "x"}]
    status, _, body = own.request("POST", path, asked)
    assert status == 400
    assert json.loads(body)["error"].startswith("invalid format: ")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^\\p{L}{3}$"},
        {"type": "string", "format": "unheard-of"},
        {"not": {"type": "integer"}},
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        {"type": "array", "items": {"enum": [1]}, "maxItems": 2, "uniqueItems": True},
    ],
    ids=str,
)
def test_one_unusual_keyword_does_not_set_the_model_free(own: Daemon, schema: Any) -> None:
    wanted = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    wanted["additionalProperties"] = False
    messages = [{"role": "user", "content": "Say hello."}]
    options = {"seed": 1, "num_predict": 20, "temperature": 0}
    answer = _ask(own, format=wanted, options=options, messages=messages)
    assert "".join(answer["message"]["content"].split()).startswith('{"a":')


@pytest.mark.parametrize("own", ["1"], indirect=True)
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_a_schema_that_only_the_constraint_engine_refuses(own: Daemon, path: str) -> None:
    wanted = {"type": "object", "properties": {"a": {"type": "integer", "enum": ["x"]}}}
    wanted["required"] = ["a"]
    asked = {"model": "smollm2", "format": wanted, "prompt": "x", "options": {"num_predict": 5}}
    asked["messages"] = [{"role": "user", "content": "x"}]
    status, _, body = own.request("POST", path, asked)
    assert status == 400
    assert "unsatisfiable" in json.loads(body)["error"]


def test_any_object(own: Daemon) -> None:
    # What it says may have no end: nothing bounds the numbers and texts of any object.
    answer = _ask(own, format="json", options={"seed": 1, "num_predict": 60})
    assert answer["message"]["content"].startswith("{")
