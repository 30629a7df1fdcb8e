"""How many bytes a model needs, and how to launch it in the memory there is.

Contract: ``runners-and-scheduling.md`` 4.6 (batch, mmap), 4.7 (prediction), 4.13 (refusal), 6
(prompt cache, shared KV). Pure. Placement on devices comes later and changes only ``plan``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import msgspec

from ollamad.errors import OllamadError
from ollamad.scheduler.spec import ModelSpec
from ollamad.units import human_gib

MIB = 1 << 20
GIB = 1 << 30

#: llama.cpp lays out a cache in steps of so many tokens.
CONTEXT_STEP = 256
#: The most host memory that one runner's prompt cache gets, and the part of the free memory.
CACHE_RAM_MAX = 8192 * MIB
CACHE_RAM_SHARE = 10

#: Bytes of one element of the KV cache; blocks of 32 carry a scale, some also a minimum.
_KV_ELEMENT = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}

#: Extra bytes that a larger batch's compute buffers take, and the share of the available memory
#: that the model may fill for that batch to be chosen (4.6).
_BATCH_SURCHARGE = {2048: 2 * GIB, 1024: 768 * MIB, 512: 0}
_BATCH_SHARE = {2048: 60, 1024: 75, 512: 80}


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator. Nothing chooses among them yet."""

    id: str
    library: str
    total: int
    free: int
    integrated: bool = False


class MemoryReading(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's memory at one moment, in bytes; 0 means unknown."""

    total: int = 0
    free: int = 0
    swap_free: int = 0
    devices: tuple[Device, ...] = ()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The user's settings that the scheduler goes by; durations in nanoseconds.

    ``max_loaded`` 0: three models a device, three without one. ``memory_guard``: refuse a model
    that memory and swap cannot hold (off on macOS, whose free memory says little).
    ``flash_attention``: None when the user did not say. ``kv_cache_type`` "" is f16.
    """

    max_queue: int = 512
    max_loaded: int = 0
    parallel: int = 1
    keep_alive: int = 300 * 10**9
    memory_guard: bool = True
    flash_attention: bool | None = None
    kv_cache_type: str = ""
    device_count: int = 0

    @property
    def loaded_models(self) -> int:
        """How many models may be in memory at a time, those being loaded or stopped included."""
        return self.max_loaded if self.max_loaded > 0 else 3 * max(1, self.device_count)


class Verdict(enum.Enum):
    """Whether a launch fits."""

    FITS = enum.auto()
    NEEDS_SWAP = enum.auto()  # not without pushing other memory out
    NEEDS_ROOM = enum.auto()  # not while all the other runners live
    TOO_LARGE = enum.auto()  # not even in their place


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the scheduler decided about one launch.

    ``num_ctx``: tokens that one request may use. ``context_total``: tokens of the whole cache,
    ``num_ctx`` × ``parallel``, or ``num_ctx`` when the slots share it (``kv_unified``).
    ``use_mmap`` None leaves the choice to the runner. ``fit``: let the runner fit its layers to
    device memory, a third of a second wasted without a device. ``predicted``: bytes without the
    prompt cache; ``reserved``: what is set aside for this runner, the prompt cache included.
    """

    num_ctx: int
    parallel: int
    kv_unified: bool
    context_total: int
    num_batch: int
    num_gpu: int
    main_gpu: int | None
    use_mmap: bool | None
    num_thread: int
    draft_num_predict: int
    cache_ram_mib: int
    flash_attention: str
    kv_cache_type: str
    fit: bool
    devices: tuple[Device, ...] = ()
    predicted: int
    reserved: int
    available: int
    verdict: Verdict


#: What a launch of the same model in the same way was seen to take: (key, context, slots, KV type).
SizeKey = tuple[str, int, int, str]


def size_key(spec: ModelSpec, plan: LaunchPlan) -> SizeKey:
    return (spec.key, plan.context_total, plan.parallel, plan.kv_cache_type)


def kv_bytes(
    spec: ModelSpec, slots: int, slot_context: int, *, kv_cache_type: str = "", num_batch: int = 512
) -> int:
    """Bytes of the KV caches of ``slots`` streams with ``slot_context`` tokens each.

    A type that we do not know counts as f16. Layers that only look at a window keep the window
    and one batch.
    """
    shape = spec.shape
    per_head = (shape.key_length + shape.value_length) * _KV_ELEMENT.get(kv_cache_type.lower(), 2.0)
    full = _padded(slot_context)
    window = min(full, _padded(shape.sliding_window + num_batch)) if shape.sliding_window else full
    tokens = sum(
        heads * (window if layer < len(shape.windowed) and shape.windowed[layer] else full)
        for layer, heads in enumerate(shape.kv_heads)
    )
    return int(tokens * per_head) * slots


def predicted_bytes(
    spec: ModelSpec, slots: int, slot_context: int, *, kv_cache_type: str = "", num_batch: int = 512
) -> int:
    """Weights, adapters, projectors, draft and KV caches (4.7); no prompt cache, no buffers."""
    return (
        spec.shape.weight_bytes
        + spec.shape.extra_bytes
        + kv_bytes(spec, slots, slot_context, kv_cache_type=kv_cache_type, num_batch=num_batch)
    )


def automatic_batch(context: int, predicted: int = 0, available: int = 0) -> int:
    """The batch of a completion model when nobody set one (4.6). 0 bytes: unknown, so it fits.

    ``available`` is device memory; the case of CUDA without flash attention comes with devices.
    """
    batch = 2048 if context > 32768 else 1024 if context > 4096 else 512
    if predicted <= 0 or available <= 0:
        return batch
    while batch > 512:
        room = available * 80 // 100 - predicted
        within_share = predicted <= available * _BATCH_SHARE[batch] // 100
        if within_share and 0 <= _BATCH_SURCHARGE[batch] <= room:
            break
        batch //= 2
    return batch


def parallel_slots(spec: ModelSpec, limits: Limits) -> int:
    """Requests that a runner of ``spec`` serves at a time (4.6 step 1)."""
    return max(1, spec.options.num_parallel or limits.parallel) if spec.parallel_allowed else 1


def plan(
    spec: ModelSpec,
    reading: MemoryReading,
    limits: Limits,
    *,
    reserved_by_others: int = 0,
    measured: Callable[[SizeKey], int] = lambda _: 0,
) -> LaunchPlan:
    """How to launch ``spec`` in the memory that ``reading`` shows, and whether it fits at all.

    ``reserved_by_others``: bytes set aside for runners that live now; a runner fills its caches
    long after it started, so what it has not touched yet still looks free. ``measured``: bytes an
    earlier launch was seen to take, 0 if there was none. Never raises: a launch that does not fit
    is a plan with that verdict.
    """
    want = spec.options
    free = _available(reading, reserved_by_others)
    parallel = parallel_slots(spec, limits)
    split = _candidate(spec, limits, parallel=parallel, shared=False, measured=measured)
    chosen = split
    # A cache for every slot is best: no request can take another's tokens. When that is more than
    # there is, the slots share one of num_ctx tokens, which still is what one request may use.
    if parallel > 1 and free is not None and split.predicted > free:
        chosen = _candidate(spec, limits, parallel=parallel, shared=True, measured=measured)
    # Without a device nothing is gained by mapping the file: repacked weights are copied anyway.
    use_mmap = False if want.use_mmap is None else want.use_mmap
    cache = 0
    if spec.is_completion and free is not None:
        cache = max(0, min(CACHE_RAM_MAX, free // CACHE_RAM_SHARE, free - chosen.predicted))
    cache_mib = cache // MIB
    verdict = Verdict.FITS
    if limits.memory_guard and want.use_mmap is not True and free is not None:
        verdict = _verdict(chosen.predicted, free, reading, reserved_by_others)
    # Mapped weights can be dropped and read again: nobody has to make room for them.
    pinned = chosen.predicted - (spec.shape.weight_bytes if use_mmap else 0)
    return LaunchPlan(
        num_ctx=want.num_ctx,
        parallel=parallel,
        kv_unified=chosen.shared,
        context_total=chosen.context_total,
        num_batch=chosen.num_batch,
        num_gpu=want.num_gpu,
        main_gpu=want.main_gpu,
        use_mmap=use_mmap,
        num_thread=want.num_thread,
        draft_num_predict=want.draft_num_predict,
        cache_ram_mib=cache_mib,
        flash_attention={None: "auto", True: "on", False: "off"}[limits.flash_attention],
        kv_cache_type=limits.kv_cache_type,
        fit=bool(reading.devices) and want.num_gpu != 0,
        devices=reading.devices,
        predicted=chosen.predicted,
        reserved=max(0, pinned) + cache_mib * MIB,
        available=max(0, (free or 0) + reading.swap_free),
        verdict=verdict,
    )


def too_large(refused: LaunchPlan) -> OllamadError:
    """The error for a model that memory and swap cannot hold (4.13)."""
    required, available = human_gib(refused.predicted), human_gib(refused.available)
    return OllamadError(
        f"model requires more system memory ({required}) than is available ({available})"
    )


class _Candidate(msgspec.Struct, frozen=True):
    shared: bool
    context_total: int
    num_batch: int
    predicted: int


def _candidate(
    spec: ModelSpec,
    limits: Limits,
    *,
    parallel: int,
    shared: bool,
    measured: Callable[[SizeKey], int],
) -> _Candidate:
    caches = 1 if shared else parallel
    context = spec.options.num_ctx * caches
    batch = spec.options.num_batch
    if spec.is_completion and spec.auto.num_batch:
        batch = automatic_batch(context)
    predicted = predicted_bytes(
        spec, caches, spec.options.num_ctx, kv_cache_type=limits.kv_cache_type, num_batch=batch
    )
    seen = measured((spec.key, context, parallel, limits.kv_cache_type))
    return _Candidate(shared, context, batch, max(predicted, seen))


def _verdict(needed: int, free: int, reading: MemoryReading, reserved_by_others: int) -> Verdict:
    if needed <= free:
        return Verdict.FITS
    if needed <= free + reading.swap_free:
        return Verdict.NEEDS_SWAP
    # Runners hold buffers that nobody counted, so that their going may free a quarter more.
    emptied = min(reading.total or reading.free, reading.free + reserved_by_others * 5 // 4)
    return Verdict.NEEDS_ROOM if needed <= emptied + reading.swap_free else Verdict.TOO_LARGE


def _available(reading: MemoryReading, reserved_by_others: int) -> int | None:
    """Free memory that nobody was promised, or None when the machine does not tell.

    Negative when more was promised than there is, which then is missing from the swap.
    """
    if reading.total <= 0:
        return reading.free if reading.free > 0 else None
    return min(reading.free, reading.total - reserved_by_others)


def _padded(tokens: int) -> int:
    return -(-tokens // CONTEXT_STEP) * CONTEXT_STEP
