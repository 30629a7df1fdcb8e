"""The reader and the facts on a real model."""

from __future__ import annotations

from support.models import smollm2

from ollamad.gguf.facts import cached_facts, read_facts
from ollamad.gguf.reader import open_gguf
from ollamad.gguf.values import Array


def test_real_header() -> None:
    with open_gguf(smollm2(), strict=True) as file:
        assert file.version == 3
        assert file.arch == "llama"
        assert file.get_int("block_count") == 30
        assert len(file.tensors) == 272
        assert file.parameter_count == 134515008
        tokens = file.metadata["tokenizer.ggml.tokens"]
        assert isinstance(tokens, Array)
        assert len(tokens) == 49152
        assert tokens.read()[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        last = max(file.tensors, key=lambda tensor: tensor.offset)
        assert file.tensor_start(last) + last.nbytes == file.size


def test_real_facts() -> None:
    facts = read_facts(smollm2())
    assert facts.file_type == "Q4_1"
    assert facts.context_length == 8192
    assert facts.head_counts == (9,) * 30
    assert facts.kv_head_counts == (3,) * 30
    assert (facts.key_length, facts.value_length) == (64, 64)
    assert facts.chat_template.startswith("{% for message in messages %}")
    assert facts.data_offset + facts.tensor_bytes == facts.size
    assert sum(facts.layer_bytes) + facts.other_bytes == facts.tensor_bytes
    assert cached_facts(smollm2()) is cached_facts(smollm2())
