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


#: The index of 4.3: names with the digests of their published chat templates.
INDEX = """
chatml 91aa728ae59c8e30 58c1a1f04baa7ada 3ce2fe9753f9a77a a805e50fed68938a 153280e3ff55d19d
chatml 793202280c0910ab af9c0233881b083b e6f6e5c192657d16 f42d04ffb2e487fa f02c534193010c4b
chatml faf1f8b675beeabd
zephyr 66291cf0045c2425 bf61473d7119388a
openchat 901b10d47195fadb
mistral-instruct 26a59556925c9873 7e995b379ec01747
starcoder2-instruct 6de66c5b4eb23df8
llama2-chat ea2472f29dbd93c3 e8d5b5a546d3f19d
codellama-70b-instruct 75678d4630858651
alpaca 993c0af704bad76a
chatqa 8aeba567270fa9a8 cd3636885332999f
gemma-instruct ecd6ae513fe103f0
gemma3-instruct 7de1c58e208eda46
llama3-instruct ba03a121d097859c e10ca381b1ccc5cf
granite-instruct e84ee90c8a81a15d
magicoder 230527c8a608cf3a
alfred 071cfb2d4c797ad4
phi-3 605841622bcb6572 268b6082ceb7176d b0e53f5e7bae6fdb
falcon-instruct 2c575663fbb6c03a f6084d6ec1cb3238
solar-instruct b8e5e922a7a4ab5d
command-r 9db2cf47ce03bfd0
"""


def test_the_index() -> None:
    """The texts are not ours to ship, so their digests cannot be tried; a slip in one shows."""
    listed = {
        digest: name
        for name, *digests in map(str.split, INDEX.strip().splitlines())
        for digest in digests
    }
    assert listed == detection._KNOWN
