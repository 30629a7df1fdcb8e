"""Bytes and launches: runners-and-scheduling 4.6, 4.7, 4.13, 6 and 8.7."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollamad.scheduler.options import Auto, RunnerOptions
from ollamad.scheduler.sizing import (
    GIB,
    MIB,
    LaunchPlan,
    Limits,
    MemoryReading,
    Verdict,
    automatic_batch,
    kv_bytes,
    plan,
    predicted_bytes,
    size_key,
    too_large,
)
from ollamad.scheduler.spec import ModelShape, ModelSpec

#: 32 layers of 8 heads of 128: 128 KiB a token.
SHAPE = ModelShape(weight_bytes=4 * GIB, kv_heads=(8,) * 32, key_length=128, value_length=128)
#: SmolLM2-135M: 30 layers of 3 heads of 64, 22.5 KiB a token.
SMOL = ModelShape(weight_bytes=90 * MIB, kv_heads=(3,) * 30, key_length=64, value_length=64)
ROOMY = MemoryReading(total=64 * GIB, free=60 * GIB)


def spec(shape: ModelShape = SHAPE, num_ctx: int = 8192, **changes: Any) -> ModelSpec:
    options = {
        name: changes.pop(name)
        for name in ("use_mmap", "num_batch", "num_gpu", "num_parallel")
        if name in changes
    }
    auto = Auto(num_ctx=True, num_batch="num_batch" not in options, use_mmap=True)
    return ModelSpec(
        key="/m",
        name="m",
        model_path=Path("/m"),
        shape=shape,
        auto=auto,
        options=RunnerOptions(num_ctx=num_ctx, **options),
        **changes,
    )


def planned(wanted: ModelSpec, reading: MemoryReading = ROOMY, **limits: Any) -> LaunchPlan:
    others = limits.pop("reserved_by_others", 0)
    return plan(wanted, reading, Limits(**limits), reserved_by_others=others)


def test_prediction() -> None:
    assert predicted_bytes(spec(), 1, 8192) == 4 * GIB + GIB
    # What llama.cpp printed for two slots of 16384.
    assert kv_bytes(spec(SMOL), 2, 16384) == 720 * MIB


def test_a_cache_is_laid_out_in_steps_of_256_tokens() -> None:
    assert kv_bytes(spec(), 1, 1) == kv_bytes(spec(), 1, 256) == 256 * 128 * 1024
    assert kv_bytes(spec(), 2, 257) == 2 * 512 * 128 * 1024


@pytest.mark.parametrize(
    ("kind", "share"), [("f32", 2), ("Q8_0", 34 / 64), ("q4_0", 18 / 64), ("?", 1), ("", 1)]
)
def test_the_type_of_the_cache_counts(kind: str, share: float) -> None:
    assert kv_bytes(spec(), 1, 8192, kv_cache_type=kind) == share * GIB


def test_layers_count_by_what_they_keep() -> None:
    shape = msgspec.structs.replace(SHAPE, kv_heads=(8, 0, 8, 8))
    assert kv_bytes(spec(shape), 1, 8192) == 3 * 8192 * 8 * 256 * 2
    shape = msgspec.structs.replace(shape, sliding_window=512, windowed=(True, True, True, False))
    assert kv_bytes(spec(shape), 1, 8192) == (2 * 1024 + 8192) * 8 * 256 * 2
    assert kv_bytes(spec(shape), 1, 512) == 3 * 512 * 8 * 256 * 2, "the window is no minimum"


@pytest.mark.parametrize(
    ("context", "predicted", "available", "batch"),
    [
        (4096, 0, 0, 512),
        (4097, 0, 0, 1024),
        (32768, 0, 0, 1024),
        (32769, 0, 0, 2048),
        (131072, 8 * GIB, 14 * GIB, 2048),
        (131072, 9 * GIB, 14 * GIB, 1024),
        (131072, 8 * GIB, 11 * GIB, 1024),
        (32768, 8500 * MIB, 11 * GIB, 512),
    ],
)
def test_automatic_batch(context: int, predicted: int, available: int, batch: int) -> None:
    assert automatic_batch(context, predicted, available) == batch


def test_a_plan_without_devices() -> None:
    got = planned(spec(), parallel=2, kv_cache_type="q8_0", flash_attention=True)
    assert (got.num_ctx, got.parallel, got.kv_unified, got.context_total) == (8192, 2, False, 16384)
    assert (got.num_batch, got.use_mmap, got.fit) == (1024, False, False)
    assert (got.flash_attention, got.kv_cache_type) == ("on", "q8_0")
    assert got.verdict is Verdict.FITS
    assert planned(spec()).flash_attention == "auto"
    assert planned(spec(), flash_attention=False).flash_attention == "off"


def test_explicit_options_are_kept() -> None:
    got = planned(spec(num_batch=300, use_mmap=True, num_gpu=7))
    assert (got.num_batch, got.use_mmap, got.num_gpu) == (300, True, 7)
    assert planned(spec(use_mmap=False)).use_mmap is False
    embedding = spec(num_batch=2048, is_completion=False, parallel_allowed=False)
    assert planned(embedding, parallel=4).parallel == 1
    assert planned(embedding).num_batch == 2048


def test_a_model_may_have_its_own_number_of_slots() -> None:
    got = planned(spec(num_parallel=3), parallel=2)
    assert (got.parallel, got.num_ctx, got.context_total) == (3, 8192, 3 * 8192)
    assert planned(spec(num_parallel=1), parallel=2).parallel == 1
    single = spec(num_parallel=3, parallel_allowed=False)
    assert planned(single).parallel == 1


def test_the_prompt_cache_takes_a_tenth_of_what_is_free() -> None:
    assert planned(spec()).cache_ram_mib == 6 * 1024
    assert planned(spec()).reserved == 5 * GIB + 6 * GIB
    huge = MemoryReading(total=512 * GIB, free=500 * GIB)
    assert planned(spec(), huge).cache_ram_mib == 8192
    tight = MemoryReading(total=64 * GIB, free=5 * GIB + 100 * MIB)
    assert planned(spec(), tight).cache_ram_mib == 100
    assert planned(spec(), MemoryReading(total=64 * GIB, free=GIB)).cache_ram_mib == 0
    assert planned(spec(is_completion=False)).cache_ram_mib == 0


def test_slots_share_one_cache_when_one_for_each_does_not_fit() -> None:
    room = MemoryReading(total=64 * GIB, free=6 * GIB)
    got = planned(spec(), room, parallel=4)
    assert (got.parallel, got.kv_unified, got.context_total) == (4, True, 8192)
    assert (got.num_ctx, got.predicted, got.verdict) == (8192, 5 * GIB, Verdict.FITS)
    room = MemoryReading(total=64 * GIB, free=8 * GIB)
    got = planned(spec(), room, parallel=4)
    assert (got.kv_unified, got.context_total, got.predicted) == (False, 32768, 8 * GIB)


@pytest.mark.parametrize(
    ("free", "swap", "others", "verdict"),
    [
        (5 * GIB, 0, 0, Verdict.FITS),
        (5 * GIB - 1, 0, 0, Verdict.TOO_LARGE),
        (4 * GIB, GIB, 0, Verdict.NEEDS_SWAP),
        (4 * GIB, 0, 2 * GIB, Verdict.NEEDS_ROOM),
        (GIB, 0, 2 * GIB, Verdict.TOO_LARGE),
        # It looks free, but others were promised it and have not touched it yet.
        (10 * GIB, 0, 12 * GIB, Verdict.NEEDS_ROOM),
    ],
)
def test_verdict(free: int, swap: int, others: int, verdict: Verdict) -> None:
    reading = MemoryReading(total=16 * GIB, free=free, swap_free=swap)
    assert planned(spec(), reading, reserved_by_others=others).verdict is verdict


def test_what_is_promised_beyond_memory_is_missing_from_the_swap() -> None:
    reading = MemoryReading(total=8 * GIB, free=2 * GIB, swap_free=8 * GIB)
    assert planned(spec(), reading, reserved_by_others=9 * GIB).verdict is Verdict.NEEDS_SWAP
    assert planned(spec(), reading, reserved_by_others=12 * GIB).verdict is Verdict.NEEDS_ROOM


def test_when_nothing_is_guarded() -> None:
    none = MemoryReading(total=16 * GIB, free=1)
    assert planned(spec(use_mmap=True), none).verdict is Verdict.FITS
    assert planned(spec(use_mmap=False), none).verdict is Verdict.TOO_LARGE
    assert planned(spec(), none, memory_guard=False).verdict is Verdict.FITS
    assert planned(spec(), MemoryReading()).verdict is Verdict.FITS


def test_mapped_weights_are_not_set_aside() -> None:
    got = planned(spec(use_mmap=True))
    assert got.reserved == GIB + got.cache_ram_mib * MIB


def test_a_measured_size_is_never_undercut() -> None:
    small = planned(spec())
    seen = {size_key(spec(), small): 7 * GIB}
    again = plan(spec(), ROOMY, Limits(), measured=lambda key: seen.get(key, 0))
    assert again.predicted == 7 * GIB
    other = plan(spec(num_ctx=4096), ROOMY, Limits(), measured=lambda key: seen.get(key, 0))
    assert other.predicted == 4 * GIB + GIB // 2


def test_the_text_of_a_refusal() -> None:
    reading = MemoryReading(total=16 * GIB, free=GIB, swap_free=512 * MIB)
    error = too_large(planned(spec(), reading))
    assert error.status == 500
    assert error.message == (
        "model requires more system memory (5.0 GiB) than is available (1.5 GiB)"
    )


def test_the_number_of_models() -> None:
    assert Limits().loaded_models == 3
    assert Limits(device_count=2).loaded_models == 6
    assert Limits(max_loaded=1, device_count=2).loaded_models == 1
