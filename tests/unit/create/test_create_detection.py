"""prompting.md 4: which built-in template stands for a GGUF's own."""

from __future__ import annotations

import hashlib

import pytest

from ollamad.create import detection
from ollamad.create.builtin_templates import builtin_template, stop_lists
from ollamad.create.detection import detect_template

LONG = 6000


@pytest.mark.parametrize(
    ("name", "text", "longest"),
    [
        ("gemma3-instruct", "<start_of_turn>{{ first_user_prefix }}", 5000),
        ("gemma-instruct", "<start_of_turn>user", 1000),
        ("llama3-instruct", "<|start_header_id|>{{ message['role'] }}", 5000),
        ("command-r", "<|START_OF_TURN_TOKEN|>", 1500),
        ("openchat", "GPT4 Correct User", 1000),
        ("alfred", "<start_user>", 1000),
        ("codellama-70b-instruct", "Source: user\n\n <step> ", 1000),
        ("phi-3", "<|user|><|end|><|assistant|>", 400),
        ("zephyr", "<|assistant|></s><|user|>", 600),
        ("chatml", "<|im_start|>", 2000),
        ("llama2-chat", "[INST] <<SYS>>", 1200),
        ("mistral-instruct", "[INST]", 700),
        ("magicoder", "@@ Instruction", 800),
        ("alpaca", "### Instruction:", 1500),
        ("starcoder2-instruct", "### Instruction\n", 800),
        ("solar-instruct", "### User:", 600),
        ("falcon-instruct", "User:\nFalcon:", 600),
        ("granite-instruct", "Question: x Answer: y", 600),
        ("chatqa", "User: x Assistant: y", 1000),
    ],
)
def test_marks(name: str, text: str, longest: int) -> None:
    found = detect_template(text)
    assert found == builtin_template(name)
    assert found.text
    assert found.stops
    assert detect_template(text + "." * (longest - len(text))) == found
    shorter = detect_template(text + "." * (longest + 1 - len(text)))
    assert shorter != found


def test_lengths_are_of_characters() -> None:
    assert detect_template("[INST]" + "€" * 694) == builtin_template("mistral-instruct")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{{ messages[0].content }}",
        "<start_of_turn>" + "." * LONG,
        "Source: x",
        "<|assistant|>",
        "Question:",
        "User: ",
        "<|im_start|>" + "." * 2000,
    ],
)
def test_unknown_formats(text: str) -> None:
    assert detect_template(text) is None


@pytest.mark.parametrize("richer", ["tools", "tool_call", "<think>"])
def test_richer_templates_stay(richer: str) -> None:
    assert detect_template("<|im_start|>") is not None
    assert detect_template(f"<|im_start|>{richer}") is None
    # Except for what ends an answer of Llama 3.
    found = detect_template(f"<|start_header_id|>{richer}")
    assert found is not None
    assert found.text == ""
    assert found.stops == ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def test_published_templates_are_known_by_their_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{{ tools }} of a published template, €"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert detect_template(text) is None
    monkeypatch.setitem(detection._KNOWN, digest, "llama3-instruct")
    assert detect_template(text) == builtin_template("llama3-instruct")
    assert detect_template(text + " ") is None


def test_every_known_digest_leads_to_a_template() -> None:
    names = list(detection._KNOWN.values())
    assert len(names) == 37
    assert all(len(bytes.fromhex(digest)) == 8 for digest in detection._KNOWN)
    assert set(names) == set(stop_lists()) - {"vicuna"}
    assert {rule.name for rule in detection._RULES} == set(names)
    assert [names.count(name) for name in ("chatml", "phi-3", "vicuna")] == [11, 3, 0]


def test_texts_that_are_no_unicode() -> None:
    assert detect_template("[INST]\udcff") == builtin_template("mistral-instruct")
