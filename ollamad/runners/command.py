"""The command line of a runner: a pure function of a launch, a kind and an address.

Spec: runners-and-scheduling 2.3 (flags, their order and conditions) and 8.3 (cases).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ollamad.errors import LoadError
from ollamad.hardware.device import Device
from ollamad.runners.address import Address, UnixAddress

if TYPE_CHECKING:
    from ollamad.runners.kinds import RunnerKind

#: Vision models whose answers are poor with fewer tokens an image (2.3 #10).
_MANY_IMAGE_TOKENS = frozenset({"qwen2vl", "qwen25vl", "qwen3vl", "qwen3vlmoe"})

#: llama.cpp refuses a smaller context.
_SMALLEST_CONTEXT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that decides how a runner is started; two equal launches give equal runners.

    The scheduler fills it: automatic values are resolved before they get here.
    """

    model_path: str
    #: Bytes of the weights in all their files; 0 for those of the one file at ``model_path``.
    model_bytes: int = 0
    #: Short name of the model, only for logs and for the hint in 2.10's error texts.
    model_name: str = ""
    arch: str = ""
    #: Context a request may use, in tokens; clamped to ``train_ctx`` when that is known (> 0).
    num_ctx: int
    train_ctx: int = 0
    parallel: int = 1
    #: One KV cache shared by the slots; each slot may still use at most ``num_ctx`` of it.
    kv_unified: bool = False
    #: Tokens of that shared cache; 0 means ``num_ctx`` for every slot.
    kv_pool: int = 0
    adapters: tuple[str, ...] = ()
    projector: str | None = None
    #: False keeps the projector in main memory (2.11).
    projector_offload: bool = True
    #: Bytes of the projector's tensors: llama-server does not print them (2.7).
    projector_bytes: int = 0
    embedding: bool = False
    #: How vectors of tokens become one (``mean``, ``cls``, ``last``, ``rank``); "" leaves it to the
    #: model's metadata.
    pooling: str = ""
    #: Tokens a batch; 0 leaves llama-server's own default.
    num_batch: int = 0
    #: Layers to offload; -1 leaves it to llama-server.
    num_gpu: int = -1
    #: 0 leaves it to llama-server.
    num_thread: int = 0
    #: What the runner gets to see; none: the processor.
    devices: tuple[Device, ...] = ()
    #: Number among ``devices`` of the one that gets everything.
    main_gpu: int | None = None
    #: Parts of the layers for each of ``devices``, in any unit; none leaves it to llama-server.
    tensor_split: tuple[float, ...] = ()
    use_mmap: bool | None = None
    #: Read the weights past the page cache: integrated GPUs on Linux (2.3 #12).
    direct_io: bool = False
    flash_attention: Literal["on", "off", "auto"] = "auto"
    kv_cache_type: str = ""
    context_shift: bool = True
    num_keep: int = 4
    #: Host memory for cached prompts; None leaves llama-server's default of 8192 MiB.
    cache_ram_mib: int | None = None
    #: False when the daemon renders prompts itself (2.3 #7).
    jinja: bool = True
    #: Let llama-server fit layers to device memory. It costs 0.34 s of a load even without a
    #: device, so it is only for launches that may offload something.
    fit: bool = False
    draft_type: str = ""
    draft_path: str | None = None
    draft_max: int = 0
    slot_save_path: str | None = None
    #: Directories of the backends that this launch uses, best first (2.6).
    backend_dirs: tuple[str, ...] = ()
    #: Visible-device and other variables of the assigned devices (1.8, 2.11).
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """What is executed: ``argv[0]`` is an absolute path."""

    argv: tuple[str, ...]


def build(launch: Launch, kind: RunnerKind, address: Address) -> Command:
    """The full command line for ``launch`` on a runner of ``kind`` that listens at ``address``.

    Raises ``LoadError`` for an adapter whose path llama-server's parser would split.
    """
    return Command((*kind.program, *flags(launch, address)))


def slot_context(launch: Launch) -> int:
    """Tokens that one request may use: clamped to the train context (2.3 #4)."""
    wanted = launch.num_ctx
    if launch.train_ctx > 0:
        wanted = min(wanted, launch.train_ctx)
    return max(wanted, _SMALLEST_CONTEXT)


def total_context(launch: Launch) -> int:
    """Tokens of KV cache that the runner allocates for all its slots."""
    per_slot = slot_context(launch)
    if launch.kv_unified and launch.kv_pool > 0:
        return max(launch.kv_pool, per_slot)
    return per_slot * max(launch.parallel, 1)


def batch_size(launch: Launch) -> int:
    """Value of ``-b``; 0 means that the flag is left out (2.3 #17)."""
    if launch.num_batch <= 0:
        return 0
    if launch.embedding and launch.num_ctx > 0:
        return min(launch.num_batch, slot_context(launch) * max(launch.parallel, 1))
    return launch.num_batch


def flags(launch: Launch, address: Address) -> list[str]:
    """llama-server's flags, in the order of 2.3; our additions come last."""
    out = ["--model", launch.model_path]
    if isinstance(address, UnixAddress):
        out += ["--host", address.path]
    else:
        out += ["--port", str(address.port), "--host", address.host]
    out += ["--no-webui", "--offline"]
    out += ["-c", str(total_context(launch)), "-np", str(max(launch.parallel, 1))]
    # The memory lines that the log reader counts are level 4.
    out += ["--log-verbosity", "4", "--no-log-prefix", "--no-log-timestamps"]
    if not launch.jinja:
        # A placeholder for the GGUF's own, which may be one that llama.cpp cannot read. Not
        # ``--no-jinja``: without it the runner does not say that it cannot compile a schema.
        out += ["--chat-template", "chatml"]
    if launch.projector is not None:
        out += ["--mmproj", launch.projector]
        if not launch.projector_offload:
            out.append("--no-mmproj-offload")
    out += _draft(launch)
    if launch.arch in _MANY_IMAGE_TOKENS:
        out += ["--image-min-tokens", "1024"]
    for adapter in launch.adapters:
        if "," in adapter or '"' in adapter:
            raise LoadError(f"adapter path contains a comma or a quote: {adapter}")
        out += ["--lora", adapter]
    if launch.direct_io:
        out += ["--load-mode", "dio"]
    elif launch.use_mmap is False:
        out += ["--load-mode", "none"]
    if launch.kv_cache_type:
        out += ["--cache-type-k", launch.kv_cache_type, "--cache-type-v", launch.kv_cache_type]
    out += ["--flash-attn", launch.flash_attention]
    if launch.embedding:
        out.append("--embedding")
    batch = batch_size(launch)
    if batch:
        out += ["-b", str(batch), "-ub", str(batch)]
    if launch.num_gpu >= 0:
        out += ["-ngl", str(launch.num_gpu)]
    if launch.num_thread > 0:
        out += ["-t", str(launch.num_thread)]
    if launch.main_gpu is not None:
        out += ["--split-mode", "none", "--main-gpu", str(launch.main_gpu)]
    elif launch.tensor_split:
        out += ["--tensor-split", ",".join(f"{part:g}" for part in launch.tensor_split)]
    if launch.context_shift:
        out.append("--context-shift")
        if launch.num_keep > 0:
            out += ["--keep", str(launch.num_keep)]
    return out + _additions(launch)


def _draft(launch: Launch) -> list[str]:
    if launch.draft_max <= 0 or not (launch.draft_type or launch.draft_path):
        return []
    out: list[str] = []
    if launch.draft_type:
        out += ["--spec-type", launch.draft_type]
    out += ["--spec-draft-n-max", str(launch.draft_max)]
    if launch.draft_type == "draft-mtp":
        out.append("--spec-draft-backend-sampling")
    if launch.draft_path is not None:
        out += ["--spec-draft-model", launch.draft_path]
    return out


def _additions(launch: Launch) -> list[str]:
    out: list[str] = []
    if launch.pooling:
        out += ["--pooling", launch.pooling]
    if launch.kv_unified:
        out += ["--kv-unified", "--kv-unified-per-slot", str(slot_context(launch))]
    if launch.cache_ram_mib is not None:
        out += ["--cache-ram", str(launch.cache_ram_mib)]
    if launch.slot_save_path is not None:
        out += ["--slot-save-path", launch.slot_save_path]
    else:
        # The slots' endpoint shows sampling settings of other requests; nothing of ours asks it.
        out.append("--no-slots")
    if not launch.fit:
        out += ["--fit", "off"]
    if not launch.devices:
        # The runner may see a device that the daemon does not use, and would take it as it comes.
        out += ["--device", "none"]
    return out
