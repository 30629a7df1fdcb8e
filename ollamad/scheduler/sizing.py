"""How many bytes a model needs, and how to launch it in the memory there is.

Contract: ``runners-and-scheduling.md`` 4.6 (batch, mmap), 4.7 (prediction), 4.13 (refusal), 6
(prompt cache, shared KV). Pure. ``placement`` says on which devices.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import msgspec

from ollamad.errors import LoadError, OllamadError
from ollamad.hardware.device import Device
from ollamad.scheduler.footprint import Footprint, footprint
from ollamad.scheduler.placement import Need, Placement, Wanted, place
from ollamad.scheduler.spec import ModelSpec
from ollamad.scheduler.tuning import automatic_batch, automatic_mmap, cache_type, flash_attention
from ollamad.units import human_gib

MIB = 1 << 20
GIB = 1 << 30

#: The most host memory that one runner's prompt cache gets, and the part of what the model leaves:
#: a tenth of all that is free would take other models' places, mostly for nothing.
CACHE_RAM_MAX = 8192 * MIB
CACHE_RAM_SHARE = 10


class MemoryReading(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's memory at one moment, in bytes; 0 means unknown.

    ``devices``: with the memory that is free now. ``no_gpu``: why there are none, if anybody knows.
    """

    total: int = 0
    free: int = 0
    swap_free: int = 0
    devices: tuple[Device, ...] = ()
    no_gpu: str = ""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The user's settings that the scheduler goes by; durations in nanoseconds.

    ``max_loaded`` 0: three models a device, three without one. ``memory_guard``: refuse a model
    that memory and swap cannot hold (off on macOS, whose free memory says little).
    ``flash_attention``: None when the user did not say. ``kv_cache_type`` "" is f16. ``spread``:
    over all devices. ``gpu_overhead``: bytes to leave free on each. ``require_gpu``: nothing runs
    on the CPU unless a request says so. ``platform`` as in ``sys``.
    """

    max_queue: int = 512
    max_loaded: int = 0
    parallel: int = 1
    keep_alive: int = 300 * 10**9
    memory_guard: bool = True
    flash_attention: bool | None = None
    kv_cache_type: str = ""
    device_count: int = 0
    spread: bool = False
    gpu_overhead: int = 0
    require_gpu: bool = False
    platform: str = "linux"

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
    NO_GPU = enum.auto()  # only on the CPU, which the user does not want


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the scheduler decided about one launch.

    ``num_ctx``: tokens that one request may use. ``context_total``: tokens of the whole cache,
    ``num_ctx`` × ``parallel``, or ``num_ctx`` when the slots share it (``kv_unified``).
    ``use_mmap`` None leaves the choice to the runner. ``fit``: let the runner fit its layers to
    device memory, a third of a second wasted without a device.

    ``devices``: those that the runner gets to see; ``num_gpu``, ``main_gpu`` and ``tensor_split``
    as in ``placement.Placement``, and so are ``on_devices`` (its ``predicted``), ``layers``,
    ``all_layers``, ``reason``, ``placed`` (its ``fits``), ``wanted_on_devices`` and
    ``room_on_devices`` (its ``wanted`` and ``available``).

    ``predicted``: bytes without the prompt cache, those on devices included; ``host``: those of
    main memory, devices that share it included; ``reserved``: what is set aside in main memory for
    this runner, the prompt cache included and files that are mapped left out. ``beside_others``:
    other runners live, so that it may not have the cores for itself.
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
    tensor_split: tuple[int, ...] = ()
    on_devices: tuple[int, ...] = ()
    layers: int = 0
    all_layers: int = 0
    placed: bool = True
    wanted_on_devices: int = 0
    room_on_devices: int = 0
    reason: str = ""
    predicted: int
    host: int
    reserved: int
    available: int
    verdict: Verdict
    beside_others: bool = False

    @property
    def on_device(self) -> dict[str, int]:
        """Bytes on each device, by its name."""
        pairs = zip(self.devices, self.on_devices, strict=True)
        return {device.name: size for device, size in pairs}


class Seen(msgspec.Struct, frozen=True):
    """What a launch was seen to take: bytes altogether, and of these on devices."""

    total: int = 0
    on_devices: int = 0

    def whole(self, stays: int) -> int:
        """Bytes on devices if all of it was there that can be, else 0.

        ``stays``: bytes that are in main memory in any case, as what tokens are looked up in.
        """
        beside = self.total - self.on_devices - stays
        return self.on_devices if beside <= self.total // 20 else 0


#: What a launch of the same model in the same way was seen to take: (key, context, slots, KV type).
SizeKey = tuple[str, int, int, str]


def size_key(spec: ModelSpec, plan: LaunchPlan) -> SizeKey:
    return (spec.key, plan.context_total, plan.parallel, plan.kv_cache_type)


def footprint_of(
    spec: ModelSpec,
    slots: int,
    slot_context: int,
    *,
    sequences: int = 0,
    kv_cache_type: str = "",
    num_batch: int = 512,
    flash: str = "auto",
) -> Footprint:
    """What a launch of ``spec`` takes, part by part; see ``footprint.footprint``."""
    return footprint(
        spec.shape,
        slots=slots,
        slot_context=slot_context,
        sequences=sequences,
        kv_cache_type=kv_cache_type,
        num_batch=num_batch,
        flash=flash != "off",
        embedding=not spec.is_completion,
        draft_tokens=spec.options.draft_num_predict,
    )


def parallel_slots(spec: ModelSpec, limits: Limits) -> int:
    """Requests that a runner of ``spec`` serves at a time (4.6 step 1)."""
    return max(1, spec.options.num_parallel or limits.parallel) if spec.parallel_allowed else 1


def plan(
    spec: ModelSpec,
    reading: MemoryReading,
    limits: Limits,
    *,
    reserved_by_others: int = 0,
    reserved_on: Mapping[str, int] | None = None,
    mapped_by_others: int = 0,
    measured: Callable[[SizeKey], Seen] = lambda _: Seen(),
    layers: int | None = None,
    beside_others: bool = False,
) -> LaunchPlan:
    """How to launch ``spec`` in the memory that ``reading`` shows, and whether it fits at all.

    ``reserved_by_others``: bytes set aside for runners that live now; a runner fills its caches
    long after it started, so what it has not touched yet still looks free. ``reserved_on``: the
    same for devices, by name. ``mapped_by_others``: bytes of files that they have mapped.
    ``measured``: what an earlier launch was seen to take. ``layers``: no more than these on
    devices, because memory ran out with more. Never raises: a launch that does not fit is a plan
    with that verdict.
    """
    want = spec.options
    free = _available(reading, reserved_by_others)
    sizer = _Sizer(spec, reading, limits, free or 0, reserved_on or {}, measured, layers)
    parallel = parallel_slots(spec, limits)
    split = sizer.candidate(parallel, shared=False)
    chosen = split
    # A cache for every slot is best: no request can take another's tokens. When that is more than
    # there is, the slots share one of num_ctx tokens, which still is what one request may use.
    short = free is not None and split.host > free
    if parallel > 1 and (short or not split.placement.fits):
        chosen = sizer.candidate(parallel, shared=True)
    placement = chosen.placement
    use_mmap = want.use_mmap
    if use_mmap is None:
        use_mmap, _ = automatic_mmap(
            placement,
            platform=limits.platform,
            file_bytes=spec.shape.weight_bytes,
            mapped_by_others=mapped_by_others,
            system_free=free or 0,
            system_total=reading.total,
        )
    cache = 0
    if spec.is_completion and free is not None:
        cache = max(0, min(CACHE_RAM_MAX, (free - chosen.host) // CACHE_RAM_SHARE))
    cache_mib = cache // MIB
    verdict = Verdict.FITS
    if limits.memory_guard and want.use_mmap is not True and free is not None:
        verdict = _verdict(chosen.host, free, reading, reserved_by_others)
    if limits.require_gpu and want.num_gpu != 0 and placement.layers == 0:
        verdict = Verdict.NO_GPU
    # Mapped weights can be dropped and read again: nobody has to make room for them.
    everything = max(1, placement.all_layers)
    mapped = spec.shape.weight_bytes * (everything - placement.layers) // everything
    pinned = chosen.host - (0 if use_mmap is False else mapped)
    return LaunchPlan(
        num_ctx=want.num_ctx,
        parallel=parallel,
        kv_unified=chosen.shared,
        context_total=chosen.context_total,
        num_batch=chosen.num_batch,
        num_gpu=placement.num_gpu,
        main_gpu=placement.main_gpu,
        use_mmap=use_mmap,
        num_thread=want.num_thread,
        draft_num_predict=want.draft_num_predict,
        cache_ram_mib=cache_mib,
        flash_attention=chosen.flash,
        kv_cache_type=chosen.kv_cache_type,
        fit=bool(placement.devices) and placement.num_gpu < 0,
        devices=placement.devices,
        tensor_split=placement.tensor_split,
        on_devices=placement.predicted,
        layers=placement.layers,
        all_layers=placement.all_layers,
        placed=placement.fits,
        wanted_on_devices=placement.wanted,
        room_on_devices=placement.available,
        reason=placement.reason,
        predicted=chosen.predicted,
        host=chosen.host,
        reserved=max(0, pinned) + cache_mib * MIB,
        available=max(0, (free or 0) + reading.swap_free),
        verdict=verdict,
        beside_others=beside_others,
    )


def too_large(refused: LaunchPlan) -> OllamadError:
    """The error for a model that memory and swap cannot hold (4.13)."""
    required, available = human_gib(refused.host), human_gib(refused.available)
    return OllamadError(
        f"model requires more system memory ({required}) than is available ({available})"
    )


def no_gpu(refused: LaunchPlan) -> LoadError:
    """The error for a model that would run on the CPU although the user wants none there."""
    return LoadError(f"OLLAMAD_REQUIRE_GPU is set and the model would run {refused.reason}")


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way to launch. ``host``: bytes of main memory, devices that share it included."""

    shared: bool
    context_total: int
    num_batch: int
    flash: str
    kv_cache_type: str
    placement: Placement
    host: int
    predicted: int


class _Sizer(msgspec.Struct, frozen=True):
    """What ways to launch have in common."""

    spec: ModelSpec
    reading: MemoryReading
    limits: Limits
    free: int
    reserved_on: Mapping[str, int]
    measured: Callable[[SizeKey], Seen]
    layers: int | None

    def candidate(self, parallel: int, *, shared: bool) -> _Candidate:
        spec, limits = self.spec, self.limits
        caches = 1 if shared else parallel
        context = spec.options.num_ctx * caches
        choose_batch = spec.is_completion and spec.auto.num_batch
        batch = automatic_batch(context) if choose_batch else spec.options.num_batch
        flash = flash_attention(limits.flash_attention, self.reading.devices)
        # What was chosen for a place may be another one's best: the second round settles it.
        for _ in range(2):
            kv_cache_type = cache_type(limits.kv_cache_type, flash)
            need = footprint_of(
                spec,
                caches,
                spec.options.num_ctx,
                sequences=parallel,
                kv_cache_type=kv_cache_type,
                num_batch=batch,
                flash=flash,
            )
            seen = self.measured((spec.key, context, parallel, kv_cache_type))
            placement = self._place(need, seen.whole(need.host_bytes(need.layers + 1)))
            devices = placement.devices
            settled = batch, flash
            flash = flash_attention(limits.flash_attention, devices)
            if choose_batch and devices:
                batch = automatic_batch(
                    context, placement.wanted, placement.available, flash=flash, devices=devices
                )
            if (batch, flash) == settled:
                break
        batch, flash = settled
        host = placement.host + placement.on_integrated
        predicted = max(placement.on_devices + placement.host, seen.total)
        if not devices:
            host = predicted
        return _Candidate(
            shared=shared,
            context_total=context,
            num_batch=batch,
            flash=flash,
            kv_cache_type=kv_cache_type,
            placement=placement,
            host=host,
            predicted=predicted,
        )

    def _place(self, need: Need, measured: int) -> Placement:
        options, limits = self.spec.options, self.limits
        wanted = Wanted(
            num_gpu=options.num_gpu if self.layers is None else self.layers,
            why="num_gpu says so" if self.layers is None else "memory ran out with more",
            main_gpu=options.main_gpu,
            spread=limits.spread,
            overhead=limits.gpu_overhead,
        )
        return place(
            need,
            self.reading.devices,
            wanted,
            reserved=self.reserved_on,
            system_free=max(0, self.free),
            measured=measured,
            why_none=self.reading.no_gpu,
        )


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
