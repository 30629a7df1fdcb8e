"""Models that exist only as numbers: what they take, how fast they are, how they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ollamad.scheduler.options import Auto, RunnerOptions
from ollamad.scheduler.spec import ModelShape, ModelSpec
from simulator.machines import GIB, MIB

#: What a driver takes for itself for each process on each device.
DEVICE_CONTEXT = 350 * MIB


@dataclass(frozen=True, kw_only=True)
class Model:
    """``weights`` and ``buffer`` in bytes. ``active``: the part of the weights that one token
    needs. ``bias``: how much more it really takes than its file lets one think."""

    name: str
    weights: int
    layers: int
    kv_heads: int = 8
    head: int = 128
    buffer: int = 300 * MIB
    active: float = 1.0
    bias: float = 1.0
    completion: bool = True
    train_context: int = 131072

    def spec(self, *, num_ctx: int | None = None, num_gpu: int = -1) -> ModelSpec:
        """As a request asks for it; without ``num_ctx`` the context is the daemon's choice."""
        return ModelSpec(
            key=self.name,
            name=self.name,
            model_path=Path(self.name),
            shape=ModelShape(
                arch="llama" if self.completion else "bert",
                weight_bytes=self.weights,
                train_context=self.train_context,
                kv_heads=(self.kv_heads,) * self.layers,
                key_length=self.head,
                value_length=self.head,
            ),
            is_completion=self.completion,
            parallel_allowed=self.completion,
            options=RunnerOptions(
                num_ctx=min(num_ctx or 4096, self.train_context),
                num_batch=512 if self.completion else 2048,
                num_gpu=num_gpu,
                draft_num_predict=0,
            ),
            auto=Auto(num_ctx=num_ctx is None, num_batch=True, use_mmap=True),
        )

    def layer_bytes(self, context: int) -> int:
        """What one layer really takes with a cache of ``context`` tokens; the output is one."""
        cache = 2 * self.kv_heads * self.head * 2 * context if self.completion else 0
        return int((self.weights / (self.layers + 1) + cache) * self.bias)

    def whole(self, context: int) -> int:
        """Everything but what each device takes for itself."""
        return (self.layers + 1) * self.layer_bytes(context) + self.buffer


_ALL = (
    Model(name="embed", weights=300 * MIB, layers=12, completion=False, train_context=8192),
    Model(name="tiny", weights=900 * MIB, layers=22, kv_heads=4, head=64),
    Model(name="small", weights=2 * GIB, layers=28),
    # Takes an eighth more than it says: buffers that nobody counts.
    Model(name="vision", weights=5 * GIB, layers=32, buffer=900 * MIB, bias=1.12),
    Model(name="mid", weights=int(4.7 * GIB), layers=32),
    Model(name="coder", weights=9 * GIB, layers=48),
    Model(name="large", weights=19 * GIB, layers=64),
    Model(name="moe", weights=18 * GIB, layers=48, kv_heads=4, active=0.12),
    Model(name="xl", weights=40 * GIB, layers=80),
    Model(name="giant", weights=230 * GIB, layers=94, active=0.1),
)
#: The models of the catalogue, by name, small ones first.
MODELS: dict[str, Model] = {model.name: model for model in _ALL}
