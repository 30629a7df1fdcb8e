"""What a model takes, part by part and place by place: runners-and-scheduling 4.7.

That the figures are true is shown where the real runner is: ``integration/test_footprint.py``.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.scheduler.footprint import Footprint, footprint
from ollamad.scheduler.spec import ModelShape

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

#: Four blocks of 10 MiB, embeddings of 8 MiB that are the output's, too, and a last norm.
SHAPE = ModelShape(
    weight_bytes=50 * MIB,
    layer_bytes=(10 * MIB,) * 4,
    other_bytes=8 * MIB + 2048,
    input_bytes=8 * MIB,
    tied_bytes=8 * MIB,
    largest_bytes=3 * MIB,
    heads=8,
    width=512,
    vocab=8192,
    kv_heads=(4,) * 4,
    key_length=64,
    value_length=64,
    activation=7178,
    attention_activation=3594,
)


def of(shape: ModelShape = SHAPE, **given: Any) -> Footprint:
    changes = {name: given.pop(name) for name in list(given) if name in shape.__struct_fields__}
    shape = msgspec.structs.replace(shape, **changes)
    return footprint(shape, **{"slots": 1, "slot_context": 4096, **given})


def test_the_parts() -> None:
    found = of()
    assert found.layers == 4
    assert found.weights == 48 * MIB + 2048
    assert found.block_caches == (4096 * 4 * 128 * 2,) * 4
    assert found.cache == 16 * MIB
    assert found.compute == 512 * (4096 * 2 + 7178 * 4)
    assert found.logits == 8192 * 4
    assert found.total == found.weights + found.cache + found.compute + found.logits


def test_nothing_but_sizes_is_known() -> None:
    found = footprint(ModelShape(weight_bytes=GIB), slots=1, slot_context=4096)
    assert (found.total, found.layers) == (GIB, 0)
    assert (found.device_bytes(0), found.host_bytes(0)) == (0, GIB)
    assert (found.device_bytes(1), found.host_bytes(1)) == (GIB, 0)
    layers = ModelShape(weight_bytes=33 * MIB, kv_heads=(0,) * 32)
    assert footprint(layers, slots=1, slot_context=1).device_bytes(8) == 8 * MIB


def test_a_cache_for_each_slot_or_one_for_all() -> None:
    assert of(slots=4, slot_context=1024).cache == of().cache == 16 * MIB
    assert of(slots=4, slot_context=1025).cache == 4 * 1280 * 4 * 4 * 128 * 2
    assert of(slots=1, sequences=4).cache == 16 * MIB
    # Every sequence has an answer, and its mask only its own cache.
    assert of(slots=4, slot_context=1024).logits == of(sequences=4).logits == 4 * 8192 * 4
    assert of().compute - of(slots=4, slot_context=1024).compute == 512 * 3072 * 2


@pytest.mark.parametrize(
    ("kind", "share"),
    [("f32", 2), ("Q8_0", 34 / 64), ("q4_0", 18 / 64), ("q5_1", 24 / 64), ("?", 1), ("", 1)],
)
def test_the_type_of_the_cache(kind: str, share: float) -> None:
    assert of(kv_cache_type=kind).cache == share * 16 * MIB


def test_layers_that_see_a_window() -> None:
    swa = {"windowed": (True, True, True, False), "sliding_window": 512}
    per_token = 4 * 128 * 2
    found = of(slot_context=8192, **swa)
    assert found.block_caches == (*(1024 * per_token,) * 3, 8192 * per_token)
    assert found.compute == 512 * ((8192 + 1024) * 2 + 7178 * 4), "one mask for each kind"
    assert of(slot_context=512, **swa).cache == 4 * 512 * per_token, "the window is no minimum"
    assert of(slot_context=8192, num_batch=128, **swa).block_caches[0] == 768 * per_token
    # Who shares a cache shares its windows.
    shared = of(slot_context=8192, sequences=4, **swa)
    assert shared.block_caches[0] == (4 * 512 + 512) * per_token
    only = of(slot_context=8192, windowed=(True,) * 4, sliding_window=512)
    assert only.compute == 512 * (1024 * 2 + 7178 * 4)
    other = of(slot_context=8192, window_key_length=32, window_value_length=16, **swa)
    assert other.block_caches[0] == 1024 * 4 * 48 * 2


def test_latent_attention_keeps_one_row() -> None:
    found = of(kv_heads=(1,) * 4, key_length=576, value_length=512, latent=True)
    assert found.cache == 4 * 4096 * 576 * 2
    indexed = of(kv_heads=(1,) * 4, key_length=576, latent=True, index_length=128)
    assert indexed.cache == 4 * 4096 * (576 + 128) * 2


def test_states_are_of_sequences_not_of_tokens() -> None:
    hybrid = {"kv_heads": (0, 4, 0, 4), "states": (1000, 0, 1000, 0)}
    attention = 4096 * 4 * 128 * 2
    assert of(**hybrid).block_caches == (4000, attention, 4000, attention)
    assert of(sequences=3, **hybrid).block_caches[0] == 12000
    assert of(slots=2, slot_context=2048, kv_cache_type="q8_0", **hybrid).block_caches[0] == 8000
    mamba = of(kv_heads=(), states=(1000,) * 4, heads=0)
    assert mamba.compute == 512 * 7178 * 4 + 4000, "nothing looks back, so there is no mask"


def test_models_without_a_cache_look_at_the_batch() -> None:
    bert = of(kv_heads=(0,) * 4, num_batch=256, embedding=True)
    assert bert.cache == 0
    assert bert.compute == 256 * (256 * 2 + 7178 * 4)


def test_attention_that_is_not_flash_has_room_for_its_scores() -> None:
    found = of(flash=False)
    assert found.compute == 512 * (4096 * 4 + (3594 + 8 * 4096) * 4)
    assert of(flash=False, slot_context=256).compute == 256 * (256 * 4 + 7178 * 4)


def test_embeddings_of_a_model_that_could_answer() -> None:
    found = of(embedding=True)
    assert found.compute == 512 * (4096 * 2 + (8192 + 5 * 512) * 4)
    assert found.logits == (8192 + 512) * 4


def test_the_batch() -> None:
    assert of(num_batch=0) == of(num_batch=512)
    assert of(num_batch=2048).compute == 4 * of().compute
    # No more than there are in all contexts, which are not yet rounded up for that.
    assert of(num_batch=2048, slots=2, slot_context=100).compute == 200 * (256 * 2 + 7178 * 4)
    # Every sequence gets the same part of it.
    assert of(slots=3, slot_context=256).compute == 513 * (256 * 2 + 7178 * 4)


def test_what_comes_with_a_model() -> None:
    found = of(projector_bytes=100, adapter_bytes=20)
    assert found.total == of().total + 120
    assert found.device_bytes(5) == of().device_bytes(5) + 120
    # A projector stays in main memory unless all of the model is elsewhere (2.11).
    assert found.device_bytes(4) == of().device_bytes(4) + 20
    assert found.host_bytes(4) == of().host_bytes(4) + 100


def test_a_draft() -> None:
    draft = msgspec.structs.replace(SHAPE, layer_bytes=(MIB,), kv_heads=(2,))
    together = of(draft=draft, draft_bytes=10, draft_tokens=4, kv_cache_type="q8_0")
    assert together.draft == of(draft).total, "with a cache of the usual type"
    assert of(draft_bytes=10, draft_tokens=4).draft == 10, "nobody could read it"
    assert of(draft=draft, draft_bytes=10).draft == 0, "it is not loaded"
    assert of(draft_tokens=4) == of(), "there is none"
    hybrid = {"kv_heads": (0, 4, 0, 4), "states": (1000, 0, 1000, 0)}
    assert of(draft_bytes=1, draft_tokens=4, **hybrid).block_caches[0] == 5 * 4000


def test_blocks_that_predict_further_tokens() -> None:
    built_in = {"draft_layers": 1, "kv_heads": (4, 4, 4, 0)}
    without = of(**built_in)
    assert without.block_weights == (10 * MIB,) * 3 + (0,)
    assert without.layers == 4, "llama.cpp counts them"
    drafting = of(draft_tokens=2, **built_in)
    assert drafting.block_weights == SHAPE.layer_bytes
    assert drafting.draft == drafting.block_caches[0] + drafting.compute
    assert of(draft_layers=2**40).block_weights == (0,) * 4


def test_where_it_is() -> None:
    """The output goes first, then the last blocks; what tokens are looked up in never does."""
    found = of(layer_bytes=(MIB, 2 * MIB, 3 * MIB, 4 * MIB))
    cache = 4 * MIB
    buffer = found.compute + 3 * MIB
    assert found.device_bytes(0) == found.device_bytes(-1) == 0
    assert found.device_bytes(1) == 8 * MIB + 2048 + buffer
    assert found.device_bytes(2) == found.device_bytes(1) + 4 * MIB + cache
    assert found.device_bytes(4) == found.device_bytes(2) + 5 * MIB + 2 * cache
    # Nothing is left whose weights have to be brought.
    assert found.device_bytes(5) == found.device_bytes(4) + MIB + cache - 3 * MIB
    assert found.device_bytes(99) == found.device_bytes(5)
    inputs = 512 * (4096 * 2 + 2 * 512 * 4)
    assert found.host_bytes(5) == 8 * MIB + inputs + found.logits
    assert found.host_bytes(4) == 8 * MIB + MIB + cache + found.compute + found.logits
    assert found.host_bytes(0) == found.total


def test_several_devices_have_a_buffer_each() -> None:
    found = of()
    inputs = 512 * (4096 * 2 + 2 * 512 * 4)
    more = found.device_bytes(5, devices=2) - found.device_bytes(5)
    assert more == found.compute + 2 * 3 * inputs, "and copies of the inputs, to work ahead"
    assert found.device_bytes(3, 2) - found.device_bytes(3) == found.compute + 3 * MIB


SHAPES = st.builds(
    ModelShape,
    weight_bytes=st.integers(0, 2**40),
    layer_bytes=st.lists(st.integers(0, 2**36), max_size=6).map(tuple),
    other_bytes=st.just(2**30),
    input_bytes=st.integers(0, 2**30),
    tied_bytes=st.integers(0, 2**30),
    largest_bytes=st.integers(0, 2**32),
    draft_layers=st.integers(0, 9),
    projector_bytes=st.integers(0, 2**32),
    adapter_bytes=st.integers(0, 2**32),
    draft_bytes=st.integers(0, 2**32),
    heads=st.integers(0, 256),
    width=st.integers(0, 2**15),
    vocab=st.integers(0, 2**18),
    kv_heads=st.lists(st.integers(0, 64), max_size=8).map(tuple),
    key_length=st.integers(0, 1024),
    value_length=st.integers(0, 1024),
    latent=st.booleans(),
    sliding_window=st.integers(0, 2**17),
    windowed=st.lists(st.booleans(), max_size=8).map(tuple),
    states=st.lists(st.integers(0, 2**22), max_size=8).map(tuple),
    activation=st.integers(0, 2**17),
    attention_activation=st.integers(0, 2**17),
)


@given(
    shape=SHAPES,
    slots=st.integers(0, 16),
    slot_context=st.integers(0, 2**20),
    sequences=st.integers(0, 16),
    num_batch=st.integers(0, 4096),
    flash=st.booleans(),
    embedding=st.booleans(),
    draft_tokens=st.integers(0, 16),
)
def test_what_holds_of_every_model(shape: ModelShape, slots: int, **given: Any) -> None:
    found = footprint(shape, slots=slots, **given)
    everywhere = range(found.layers + 2)
    on_devices = [found.device_bytes(layers) for layers in everywhere]
    on_host = [found.host_bytes(layers) for layers in everywhere]
    assert min(on_devices) >= 0
    assert min(on_host) >= 0
    # More layers never take less, but for the room for weights that are brought.
    assert on_devices[:-1] == sorted(on_devices[:-1])
    assert on_host[1:] == sorted(on_host[1:], reverse=True)
    for there, here in zip(on_devices, on_host, strict=True):
        assert there + here >= found.total - 2 * found.compute
    larger = {**given, "slot_context": given["slot_context"] + 4096}
    assert footprint(shape, slots=slots, **larger).total >= found.total
    alone = {**given, "sequences": 0}
    caches = [footprint(shape, slots=slots + more, **alone).cache for more in (0, 1)]
    assert caches == sorted(caches)
