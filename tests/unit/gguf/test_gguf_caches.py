"""What blocks keep of tokens and compute with, as llama.cpp allocates it for an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.architectures import ARCHITECTURES, Dims, write_model

from ollamad.gguf.encoding import TypedArray, Writable
from ollamad.gguf.facts import Facts, read_facts
from ollamad.gguf.values import ValueType
from ollamad.gguf.writer import write_gguf


@pytest.fixture
def keyed(tmp_path: Path) -> Any:
    def facts(arch: str, **keys: Writable) -> Facts:
        base: dict[str, Writable] = {
            "general.architecture": arch,
            "block_count": 4,
            "embedding_length": 64,
            "attention.head_count": 8,
        }
        more = {key.replace("__", "."): value for key, value in keys.items()}
        write_gguf(tmp_path / "m", {**base, **more})
        return read_facts(tmp_path / "m")

    return facts


def ints(*numbers: int) -> TypedArray:
    return TypedArray(ValueType.I32, list(numbers))


@pytest.mark.parametrize(
    ("arch", "flags"),
    [
        ("gemma2", (True, False, True, False)),
        ("llama4", (True, True, True, False)),
        ("smallthinker", (False, True, True, True)),
        ("laguna", (False, True, True, True)),
        ("gpt-oss", (True, False, True, False)),
        ("lfm2", (True,) * 4),
        ("phi3", ()),
        ("llama", (False,) * 4),
    ],
)
def test_which_layers_see_a_window(keyed: Any, arch: str, flags: tuple[bool, ...]) -> None:
    assert keyed(arch, attention__sliding_window=512).windowed == flags


def test_windows_that_no_file_names(keyed: Any) -> None:
    assert keyed("gemma2").sliding_window == 4096
    assert keyed("llama4").sliding_window == 8192
    assert keyed("llama4", attention__sliding_window=0).windowed == ()
    assert keyed("phi3", attention__sliding_window=512).sliding_window == 0
    found = keyed("gemma4", attention__key_length=16, attention__key_length_swa=8)
    assert (found.window_key_length, found.window_value_length) == (8, 8)
    assert (found.key_length, found.value_length) == (16, 8)


def test_layers_without_a_cache(keyed: Any) -> None:
    assert keyed("bert").kv_head_counts == (0,) * 4
    assert keyed("glm4moe", nextn_predict_layers=1).kv_head_counts == (8, 8, 8, 0)
    assert keyed("gemma4", attention__shared_kv_layers=3).kv_head_counts == (8, 0, 0, 0)
    assert sum(map(bool, keyed("gemma3n", block_count=30).kv_head_counts)) == 20
    found = keyed("qwen35", attention__recurrent_layers=ints(1, 1, 0))
    assert found.kv_head_counts == (0, 0, 8, 8)


@pytest.mark.parametrize(
    ("arch", "keys", "length"),
    [
        ("mamba", {"ssm__conv_kernel": 4, "ssm__inner_size": 128, "ssm__state_size": 16}, 2432),
        (
            "mamba2",
            {
                "ssm__conv_kernel": 4,
                "ssm__inner_size": 128,
                "ssm__state_size": 16,
                "ssm__group_count": 2,
            },
            2048 + 3 * (128 + 64),
        ),
        ("rwkv7", {"wkv__head_size": 16}, 64 * 18),
        ("rwkv6qwen2", {"wkv__head_size": 16, "token_shift_count": 1}, 64 * 17),
    ],
)
def test_the_length_of_a_state(keyed: Any, arch: str, keys: dict[str, Any], length: int) -> None:
    found = keyed(arch, **{"attention__head_count": 0, **keys})
    assert found.states == (length,) * 4
    assert not any(found.kv_head_counts)


def test_states_of_hybrids(keyed: Any) -> None:
    state = {"ssm__conv_kernel": 1, "ssm__inner_size": 128, "ssm__state_size": 16}
    heads = ints(0, 2, 0, 2)
    mixed = keyed("jamba", attention__head_count_kv=heads, **state)
    assert (mixed.states, mixed.kv_head_counts) == ((2048, 0, 2048, 0), (0, 2, 0, 2))
    assert keyed("falcon-h1", **state).states == (2048,) * 4
    three = keyed(
        "nemotron_h",
        attention__head_count_kv=heads,
        feed_forward_length=ints(0, 0, 99, 0),
        **state,
    )
    assert three.states == (2048, 0, 0, 0)
    convolved = keyed("lfm2", attention__head_count_kv=heads, shortconv__l_cache=3)
    assert convolved.states == (128, 0, 128, 0)
    kimi = keyed("kimi-linear", attention__head_count_kv=heads, kda__head_dim=16)
    assert kimi.states == (8 * 16 * (16 + 9), 0, 8 * 16 * (16 + 9), 0)
    assert keyed("llama").states == ()


def test_latent_rows(keyed: Any) -> None:
    found = keyed("deepseek2", attention__key_length_mla=192, attention__indexer__key_length=128)
    assert (found.latent, found.index_length) == (True, 0)
    assert keyed("deepseek32", attention__indexer__key_length=128).index_length == 128
    assert not keyed("deepseek2").latent


def test_absurd_numbers_make_no_lists(keyed: Any) -> None:
    found = keyed(
        "mamba",
        block_count=2**32 - 1,
        ssm__conv_kernel=2**32 - 1,
        ssm__inner_size=2**32 - 1,
        ssm__state_size=2**32 - 1,
        attention__sliding_window=8,
    )
    assert (found.states, found.kv_head_counts, found.windowed) == ((), (), ())
    assert keyed("bert", nextn_predict_layers=2**32 - 1).kv_head_counts == (0,) * 4
    assert keyed("gemma4", attention__shared_kv_layers=99).kv_head_counts == (0,) * 4


# --- what a graph computes with -------------------------------------------------------------------


def model(tmp_path: Path, arch: str, **dims: Any) -> Facts:
    return read_facts(write_model(tmp_path / "m", arch, Dims(**dims)))


@pytest.mark.parametrize(
    ("arch", "most"),
    [
        ("llama", 3 * 1536 + 5 * 512),
        ("phi3", 3 * 1536 + 5 * 512),
        ("bert", 1536 + 5 * 512),
        ("qwen3moe", 3 * 2 * 512 + 5 * 512),
        ("mamba", 13 * 512 + 2 * 512),
    ],
)
def test_activations(tmp_path: Path, arch: str, most: int) -> None:
    found = model(tmp_path, arch)
    assert found.activation in (most + 10, found.attention_activation)
    assert found.activation >= most


def test_activations_follow_the_widest_step(tmp_path: Path) -> None:
    narrow = model(tmp_path, "llama", inner=256)
    assert narrow.activation == narrow.attention_activation == 4 * 512 + 768 * 2 + 10
    experts = {"width": 1024, "used": 8, "experts": 8, "head": 64}
    assert model(tmp_path, "qwen3moe", expert_inner=512, **experts).activation == (
        3 * 8 * 512 + 5 * 1024 + 10
    )
    # Answers that are longer than what they come from get room of their own.
    assert model(tmp_path, "qwen3moe", expert_inner=384, **experts).activation == (
        3 * 8 * 384 + 8 * 1024 + 5 * 1024 + 10
    )
    assert model(tmp_path, "deepseek2", heads=32).activation == (
        32 * (2 * 256 + 3 * 64 + 128) + 5 * 512 + 10
    )


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_both_ends_and_the_blocks_are_all_there_is(tmp_path: Path, arch: str) -> None:
    found = model(tmp_path, arch)
    assert sum(found.layer_bytes) + found.other_bytes == found.tensor_bytes
    assert 0 < found.embedding_bytes <= found.input_bytes <= found.other_bytes
    assert 0 < found.largest_bytes < min(found.layer_bytes)
    assert found.activation > 512


def test_whether_the_output_has_weights_of_its_own(tmp_path: Path) -> None:
    tied = model(tmp_path, "llama")
    assert not tied.has_output
    assert tied.embedding_bytes == tied.input_bytes == 4096 * 512 * 2
    untied = model(tmp_path, "llama", untied=True)
    assert untied.has_output
    assert untied.other_bytes == tied.other_bytes + 4096 * 512 * 2
