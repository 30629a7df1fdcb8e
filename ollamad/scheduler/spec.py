"""What a request asks the scheduler for: a model, its files, and how its runner must be started.

Contract: ``runners-and-scheduling.md`` 4.1 (keys), 4.4 (reload), 4.6 (parallel slots). Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ollamad.scheduler.options import Auto, RunnerOptions

#: Architectures whose runner serves one request at a time, whatever the user asks for (4.6).
SINGLE_SLOT_FAMILIES = frozenset(
    {
        "mllama",
        "qwen3vl",
        "qwen3vlmoe",
        "qwen35",
        "qwen35moe",
        "qwen3next",
        "lfm2",
        "lfm2moe",
        "nemotron_h",
        "nemotron_h_moe",
        "nemotron_h_omni",
    }
)


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of the GGUF that memory depends on; sizes in bytes, contexts in tokens.

    ``weight_bytes``: of the weights' files. ``layer_bytes``: of the weights of each block, ()
    when that is not known; ``other_bytes``: of those in no block, of which ``input_bytes`` are
    looked up and ``tied_bytes`` are the output's as well; ``largest_bytes``: of a tensor in a
    block. ``draft_layers``: so many of the last blocks only serve to predict further tokens.

    ``kv_heads``: attention heads with a cache, one number a layer (0 for a layer without one).
    ``latent``: keys and values are one row of ``key_length``. ``index_length``: of a second row of
    keys. ``windowed``: per layer, whether its cache holds only ``sliding_window`` tokens, of rows
    that may have other lengths (0: they have not). ``states``: numbers of 32 bits that each layer
    keeps of a sequence.

    ``activation``, ``attention_activation``: numbers that a graph computes with at a time, per
    token, altogether and in attention; 0 when that is not known. ``draft``: the shape of a draft in
    a file of its own, None also when it cannot be read; then ``draft_bytes`` are all that is known.
    """

    arch: str = ""
    weight_bytes: int
    layer_bytes: tuple[int, ...] = ()
    other_bytes: int = 0
    input_bytes: int = 0
    tied_bytes: int = 0
    largest_bytes: int = 0
    draft_layers: int = 0
    projector_bytes: int = 0
    adapter_bytes: int = 0
    draft_bytes: int = 0
    draft: ModelShape | None = None
    train_context: int = 0
    heads: int = 0
    width: int = 0
    vocab: int = 0
    kv_heads: tuple[int, ...] = ()
    key_length: int = 0
    value_length: int = 0
    latent: bool = False
    index_length: int = 0
    sliding_window: int = 0
    windowed: tuple[bool, ...] = ()
    window_key_length: int = 0
    window_value_length: int = 0
    states: tuple[int, ...] = ()
    activation: int = 0
    attention_activation: int = 0

    @property
    def extra_bytes(self) -> int:
        """Of the files beside the weights: adapters, projectors and the draft."""
        return self.projector_bytes + self.adapter_bytes + self.draft_bytes

    def row(self, windowed: bool) -> int:
        """Numbers that a head keeps of a token in such a layer."""
        key, value = self.key_length, self.value_length
        if windowed:
            key, value = self.window_key_length or key, self.window_value_length or value
        return key if self.latent else key + value


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model as one request wants it. Requests with the same ``key`` share a runner if they can.

    ``key``: see ``model_key``. ``shards``: all files of a split model in order, of which
    ``model_path`` is the first; none when there is one file. ``name``: short display name.
    ``info``: whatever the caller wants back from ``Scheduler.loaded`` (``ps`` details).
    ``parallel_allowed``: see ``may_run_parallel``. ``jinja``: the runner applies the GGUF's chat
    template; false when the daemon renders prompts itself. ``num_keep`` is only used when this
    request causes the launch.
    """

    key: str
    name: str
    digest: str = ""
    model_path: Path
    shards: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    projectors: tuple[Path, ...] = ()
    draft: Path | None = None
    shape: ModelShape
    families: tuple[str, ...] = ()
    is_completion: bool = True
    options: RunnerOptions
    auto: Auto = Auto()
    context_shift: bool = True
    num_keep: int = 4
    jinja: bool = True
    parallel_allowed: bool = True
    info: Any = None


def model_key(paths: Sequence[Path], *, manifest_digest: str = "", name: str = "") -> str:
    """What identifies a loaded model: its weights, all shards of them, if it has any (4.1).

    Two split models may share their first shard, which can be a header and nothing else.
    """
    if paths:
        return "\n".join(map(str, paths))
    return f"digest:{manifest_digest}" if manifest_digest else f"name:{name}"


def may_run_parallel(is_completion: bool, families: Collection[str]) -> bool:
    """Whether more than one slot makes sense for such a model (4.6 step 1)."""
    return is_completion and SINGLE_SLOT_FAMILIES.isdisjoint(families)


def reload_reason(loaded: ModelSpec, wanted: ModelSpec) -> str | None:
    """Why a runner that was started as ``loaded`` cannot serve ``wanted``; None when it can (4.4).

    ``loaded.options`` are those really in force (the context and batch that were chosen), and
    ``loaded.auto`` says which of them were the daemon's choice.
    """
    if loaded is wanted:
        return None
    for field in ("context_shift", "adapters", "projectors", "draft", "jinja"):
        if getattr(loaded, field) != getattr(wanted, field):
            return field
    have, want = loaded.options, wanted.options
    num_ctx, num_batch, use_mmap = want.num_ctx, want.num_batch, want.use_mmap
    if loaded.shape.train_context > 0:
        num_ctx = min(num_ctx, loaded.shape.train_context)
    # What was automatic on both sides stays as it is, or the daemon's own choices would reload.
    if loaded.auto.num_ctx and wanted.auto.num_ctx:
        num_ctx = have.num_ctx
    if loaded.auto.num_batch and wanted.auto.num_batch:
        num_batch = have.num_batch
    if loaded.auto.use_mmap and use_mmap is None:
        use_mmap = have.use_mmap
    if num_ctx != have.num_ctx:
        return "num_ctx"
    if num_batch != have.num_batch:
        return "num_batch"
    if use_mmap != have.use_mmap:
        return "use_mmap"
    if want.num_gpu >= 0 and want.num_gpu != have.num_gpu:
        return "num_gpu"
    # Who does not say how many slots takes those there are. A model that gets one in any case was
    # not loaded with fewer than it asked for.
    if wanted.parallel_allowed and want.num_parallel not in (0, have.num_parallel):
        return "num_parallel"
    for field in ("main_gpu", "num_thread", "draft_num_predict"):
        if getattr(want, field) != getattr(have, field):
            return field
    return None
