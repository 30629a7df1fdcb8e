"""Bytes and launches: runners-and-scheduling 4.6, 4.7, 4.13, 6 and 8.7."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollamad.hardware.device import Device
from ollamad.scheduler.options import Auto, RunnerOptions
from ollamad.scheduler.sizing import (
    GIB,
    MIB,
    LaunchPlan,
    Limits,
    MemoryReading,
    Seen,
    Verdict,
    footprint_of,
    no_gpu,
    plan,
    size_key,
    too_large,
)
from ollamad.scheduler.spec import ModelShape, ModelSpec
from ollamad.units import human_gib

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


def cache(wanted: ModelSpec, slots: int, slot_context: int, kind: str = "") -> int:
    """Bytes of what a runner keeps of the tokens."""
    return footprint_of(wanted, slots, slot_context, kv_cache_type=kind).cache


def test_prediction() -> None:
    assert footprint_of(spec(), 1, 8192).total == 4 * GIB + GIB
    # What llama.cpp printed for two slots of 16384.
    assert cache(spec(SMOL), 2, 16384) == 720 * MIB


def test_a_cache_is_laid_out_in_steps_of_256_tokens() -> None:
    assert cache(spec(), 1, 1) == cache(spec(), 1, 256) == 256 * 128 * 1024
    assert cache(spec(), 2, 257) == 2 * 512 * 128 * 1024


@pytest.mark.parametrize(
    ("kind", "share"), [("f32", 2), ("Q8_0", 34 / 64), ("q4_0", 18 / 64), ("?", 1), ("", 1)]
)
def test_the_type_of_the_cache_counts(kind: str, share: float) -> None:
    assert cache(spec(), 1, 8192, kind) == share * GIB


def test_layers_count_by_what_they_keep() -> None:
    shape = msgspec.structs.replace(SHAPE, kv_heads=(8, 0, 8, 8))
    assert cache(spec(shape), 1, 8192) == 3 * 8192 * 8 * 256 * 2
    shape = msgspec.structs.replace(shape, sliding_window=512, windowed=(True, True, True, False))
    assert cache(spec(shape), 1, 8192) == (2 * 1024 + 8192) * 8 * 256 * 2
    assert cache(spec(shape), 1, 512) == 3 * 512 * 8 * 256 * 2, "the window is no minimum"


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


def test_the_prompt_cache_takes_a_tenth_of_what_the_model_leaves() -> None:
    assert planned(spec()).cache_ram_mib == 5632
    assert planned(spec()).reserved == 5 * GIB + 5632 * MIB
    huge = MemoryReading(total=512 * GIB, free=500 * GIB)
    assert planned(spec(), huge).cache_ram_mib == 8192
    tight = MemoryReading(total=64 * GIB, free=5 * GIB + 1000 * MIB)
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
    seen = {size_key(spec(), small): Seen(7 * GIB)}
    again = plan(spec(), ROOMY, Limits(), measured=lambda key: seen.get(key, Seen()))
    assert again.predicted == 7 * GIB
    other = plan(spec(num_ctx=4096), ROOMY, Limits(), measured=lambda key: seen.get(key, Seen()))
    assert other.predicted == 4 * GIB + GIB // 2


def card(number: int = 0, total: int = 24, free: int = 23, **changes: Any) -> Device:
    return Device(
        id=str(number),
        library=changes.pop("library", "CUDA"),
        name=f"CUDA{number}",
        total_memory=total * GIB,
        free_memory=free * GIB,
        compute=(8, 9),
        **changes,
    )


def with_cards(*cards: Device, **memory: Any) -> MemoryReading:
    return MemoryReading(**{"total": 64 * GIB, "free": 60 * GIB, **memory}, devices=cards)


def test_a_plan_for_a_device() -> None:
    got = planned(spec(), with_cards(card()))
    assert [device.name for device in got.devices] == ["CUDA0"]
    assert (got.num_gpu, got.main_gpu, got.layers, got.all_layers) == (-1, None, 33, 33)
    assert (got.fit, got.placed, got.verdict) == (True, True, Verdict.FITS)
    assert got.use_mmap is None, "what goes to a device is read through a map"
    assert got.on_device == {"CUDA0": 5 * GIB}
    assert got.reserved == got.cache_ram_mib * MIB, "nothing else is in main memory"
    assert got.reason == "all 33 layers on CUDA0"


def test_one_card_of_two() -> None:
    got = planned(spec(), with_cards(card(0, free=4), card(1)))
    assert ([device.name for device in got.devices], got.main_gpu) == (["CUDA1"], 0)
    spread = planned(spec(), with_cards(card(0), card(1)), spread=True)
    assert (len(spread.devices), spread.main_gpu) == (2, None)
    roomy = planned(spec(), with_cards(card(0), card(1)), gpu_overhead=17 * GIB)
    assert len(roomy.devices) == 2, "neither has 80 % of what it needs"


def test_no_layers_for_the_device() -> None:
    got = planned(spec(num_gpu=0), with_cards(card()))
    assert (got.devices, got.num_gpu, got.fit, got.use_mmap) == ((), 0, False, False)
    assert got.reserved == 5 * GIB + got.cache_ram_mib * MIB


def test_what_devices_hold_needs_no_main_memory() -> None:
    reading = with_cards(card(), free=GIB)
    assert planned(spec(), reading).verdict is Verdict.FITS
    assert planned(spec(), reading, memory_guard=True).reserved < GIB
    # Half of it stays in main memory and is too large for that.
    small = with_cards(card(total=3, free=3), free=GIB)
    refused = planned(spec(), small)
    assert refused.verdict is Verdict.TOO_LARGE
    assert (refused.layers, refused.placed) == (13, False)


def test_a_device_that_shares_main_memory_takes_it() -> None:
    shared = with_cards(card(total=48, free=48, integrated=True), free=12 * GIB)
    got = planned(spec(), shared)
    assert got.placed
    assert got.reserved == 5 * GIB + got.cache_ram_mib * MIB
    assert got.cache_ram_mib == (12 - 5) * 1024 // 10
    # 5 GiB are more than 80 % of the 6 that main memory has, whatever the device says.
    assert not planned(spec(), with_cards(shared.devices[0], free=6 * GIB)).placed


def test_slots_share_one_cache_when_the_device_has_no_room_for_more() -> None:
    assert not planned(spec(), with_cards(card()), parallel=4).kv_unified
    got = planned(spec(), with_cards(card(total=8, free=8)), parallel=4)
    assert (got.kv_unified, got.placed, got.on_device) == (True, True, {"CUDA0": 5 * GIB})


def test_a_batch_that_the_device_has_room_for() -> None:
    wide = spec(num_ctx=40960)
    assert planned(wide, with_cards(card())).num_batch == 2048
    assert planned(wide, with_cards(card(total=12, free=12))).num_batch == 512
    assert planned(wide, with_cards(card()), flash_attention=False).num_batch == 512
    assert planned(wide, with_cards(card(total=8, free=8)), flash_attention=False).num_batch == 256


def test_flash_attention_and_the_cache_go_by_the_device() -> None:
    old = msgspec.structs.replace(card(), compute=(5, 2))
    got = planned(spec(), with_cards(old), kv_cache_type="q8_0")
    assert (got.flash_attention, got.kv_cache_type, got.on_devices) == ("off", "", (5 * GIB,))
    assert planned(spec(), with_cards(old), kv_cache_type="f16").kv_cache_type == "f16"
    got = planned(spec(), with_cards(card()), kv_cache_type="q8_0")
    assert (got.flash_attention, got.kv_cache_type) == ("auto", "q8_0")
    # On the CPU it is there, whatever the card lacks.
    got = planned(spec(num_gpu=0), with_cards(old), kv_cache_type="q8_0")
    assert (got.flash_attention, got.kv_cache_type) == ("auto", "q8_0")


def test_fewer_layers_after_memory_ran_out() -> None:
    got = plan(spec(), with_cards(card()), Limits(), layers=16)
    assert (got.num_gpu, got.layers, got.fit, got.placed) == (16, 16, False, True)
    assert got.reason == "16 of 33 layers on CUDA0: memory ran out with more"
    got = plan(spec(), with_cards(card()), Limits(), layers=0)
    assert (got.devices, got.reason) == ((), "on the CPU: memory ran out with more")


def test_the_cpu_when_nobody_wants_it() -> None:
    refused = planned(spec(), MemoryReading(total=GIB * 64, no_gpu="no driver"), require_gpu=True)
    assert refused.verdict is Verdict.NO_GPU
    assert no_gpu(refused).message == (
        "OLLAMAD_REQUIRE_GPU is set and the model would run on the CPU: no driver"
    )
    assert planned(spec(), with_cards(card(free=1)), require_gpu=True).verdict is Verdict.NO_GPU
    assert planned(spec(), with_cards(card(free=3)), require_gpu=True).verdict is Verdict.FITS
    assert planned(spec(num_gpu=0), require_gpu=True).verdict is Verdict.FITS, "it was asked for"


def test_a_measured_launch_is_placed_by_what_it_took() -> None:
    reading = with_cards(card(total=8, free=6))
    assert not planned(spec(), reading).placed
    seen = Seen(total=4 * GIB, on_devices=4 * GIB)
    assert plan(spec(), reading, Limits(), measured=lambda _: seen).placed
    # What tokens are looked up in never is on a device.
    shape = msgspec.structs.replace(
        spec().shape, layer_bytes=(GIB // 16,) * 32, other_bytes=2 * GIB
    )
    shape = msgspec.structs.replace(shape, input_bytes=2 * GIB)
    wide = msgspec.structs.replace(spec(), shape=shape)
    seen = Seen(total=3 * GIB, on_devices=GIB)
    got = plan(wide, reading, Limits(), measured=lambda _: seen)
    assert (got.on_device, got.host) == ({"CUDA0": GIB}, 2 * GIB)
    # Half of it was elsewhere: that says nothing about the whole.
    seen = Seen(total=8 * GIB, on_devices=4 * GIB)
    assert not plan(spec(), reading, Limits(), measured=lambda _: seen).placed


def test_the_text_of_a_refusal() -> None:
    reading = MemoryReading(total=16 * GIB, free=GIB, swap_free=512 * MIB)
    error = too_large(planned(spec(), reading))
    assert error.status == 500
    assert error.message == (
        "model requires more system memory (5.0 GiB) than is available (1.5 GiB)"
    )


def test_what_is_on_devices_is_not_refused() -> None:
    few = MemoryReading(total=4 * GIB, free=GIB, devices=(card(total=4, free=4),))
    refused = plan(spec(), few, Limits())
    assert refused.verdict is Verdict.TOO_LARGE
    assert 0 < refused.host < refused.predicted
    assert human_gib(refused.host) in too_large(refused).message


def test_the_number_of_models() -> None:
    assert Limits().loaded_models == 3
    assert Limits(device_count=2).loaded_models == 6
    assert Limits(max_loaded=1, device_count=2).loaded_models == 1
