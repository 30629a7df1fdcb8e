"""Which built-in Go template stands for a GGUF's chat template (prompting.md 4, 5.1 of
modelfile-and-create). Pure.

Published chat templates are known by their digests; what is near to one of them is recognised by
what every template of that format contains.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import NamedTuple

from ollamad.create.builtin_templates import builtin_template
from ollamad.create.layers import DetectedTemplate
from ollamad.errors import BadRequest
from ollamad.gotemplate.errors import TemplateSyntaxError
from ollamad.prompting.template import parse_template

#: By the first 16 hex digits of the SHA-256 of the UTF-8 text (4.3).
_KNOWN = {
    "91aa728ae59c8e30": "chatml",
    "58c1a1f04baa7ada": "chatml",
    "66291cf0045c2425": "zephyr",
    "3ce2fe9753f9a77a": "chatml",
    "901b10d47195fadb": "openchat",
    "a805e50fed68938a": "chatml",
    "153280e3ff55d19d": "chatml",
    "793202280c0910ab": "chatml",
    "af9c0233881b083b": "chatml",
    "bf61473d7119388a": "zephyr",
    "26a59556925c9873": "mistral-instruct",
    "6de66c5b4eb23df8": "starcoder2-instruct",
    "ea2472f29dbd93c3": "llama2-chat",
    "75678d4630858651": "codellama-70b-instruct",
    "7e995b379ec01747": "mistral-instruct",
    "e6f6e5c192657d16": "chatml",
    "f42d04ffb2e487fa": "chatml",
    "f02c534193010c4b": "chatml",
    "faf1f8b675beeabd": "chatml",
    "993c0af704bad76a": "alpaca",
    "8aeba567270fa9a8": "chatqa",
    "ecd6ae513fe103f0": "gemma-instruct",
    "7de1c58e208eda46": "gemma3-instruct",
    "ba03a121d097859c": "llama3-instruct",
    "e10ca381b1ccc5cf": "llama3-instruct",
    "e84ee90c8a81a15d": "granite-instruct",
    "230527c8a608cf3a": "magicoder",
    "071cfb2d4c797ad4": "alfred",
    "e8d5b5a546d3f19d": "llama2-chat",
    "605841622bcb6572": "phi-3",
    "268b6082ceb7176d": "phi-3",
    "b0e53f5e7bae6fdb": "phi-3",
    "cd3636885332999f": "chatqa",
    "2c575663fbb6c03a": "falcon-instruct",
    "f6084d6ec1cb3238": "falcon-instruct",
    "b8e5e922a7a4ab5d": "solar-instruct",
    "9db2cf47ce03bfd0": "command-r",
}


class _Rule(NamedTuple):
    """A format by what its chat templates contain, if they have ``longest`` characters at most."""

    name: str
    markers: tuple[str, ...]
    longest: int


#: The first rule that holds decides (4.4).
_RULES = (
    _Rule("gemma3-instruct", ("<start_of_turn>", "first_user_prefix"), 5000),
    _Rule("gemma-instruct", ("<start_of_turn>",), 1000),
    _Rule("llama3-instruct", ("<|start_header_id|>",), 5000),
    _Rule("command-r", ("<|START_OF_TURN_TOKEN|>",), 1500),
    _Rule("openchat", ("GPT4 Correct",), 1000),
    _Rule("alfred", ("<start_user>",), 1000),
    _Rule("codellama-70b-instruct", ("Source: ", "<step>"), 1000),
    _Rule("phi-3", ("<|end|>", "<|assistant|>"), 400),
    _Rule("zephyr", ("<|assistant|>", "<|user|>"), 600),
    _Rule("chatml", ("<|im_start|>",), 2000),
    _Rule("llama2-chat", ("<<SYS>>",), 1200),
    _Rule("mistral-instruct", ("[INST]",), 700),
    _Rule("magicoder", ("@@ Instruction",), 800),
    _Rule("alpaca", ("### Instruction:",), 1500),
    _Rule("starcoder2-instruct", ("### Instruction",), 800),
    _Rule("solar-instruct", ("### User:",), 600),
    _Rule("falcon-instruct", ("Falcon:",), 600),
    _Rule("granite-instruct", ("Question:", "Answer:"), 600),
    _Rule("chatqa", ("User: ", "Assistant:"), 1000),
)

#: A chat template with one of these knows more than our Go template would: it stays in use.
_RICHER = ("tools", "tool_call", "<think>")

#: Its stop sequences are worth having even then: not every file marks them as ends of generation.
_STOPS_ALWAYS = "llama3-instruct"


def detect_template(chat_template: str) -> DetectedTemplate | None:
    """The built-in template for the text of a GGUF's chat template, or none.

    One without text brings only its stop sequences.
    """
    # Files may hold what is no UTF-8; such a text is not one that was published.
    digest = hashlib.sha256(chat_template.encode("utf-8", "surrogatepass")).hexdigest()
    known = _KNOWN.get(digest[:16])
    if known is not None:
        return builtin_template(known)
    name = _by_markers(chat_template)
    if not any(mark in chat_template for mark in _RICHER):
        return None if name is None else builtin_template(name)
    if name == _STOPS_ALWAYS:
        return replace(builtin_template(name), text="")
    return None


def _by_markers(text: str) -> str | None:
    for rule in _RULES:
        if len(text) <= rule.longest and all(marker in text for marker in rule.markers):
            return rule.name
    return None


def check_template(text: str) -> None:
    """Raises BadRequest ``template error: …`` for a Go template that cannot be parsed (4.8)."""
    try:
        parse_template(text)
    except TemplateSyntaxError as error:
        raise BadRequest(f"template error: {error}") from error
