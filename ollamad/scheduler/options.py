"""The effective options of a request: defaults, overlaid by the model's, overlaid by the request's.

Contract: ``http-api.md`` 8.3 and ``runners-and-scheduling.md`` 4.2. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from ollamad.errors import BadRequest, OllamadError

#: Tokens to draft at a time when the model brings a draft and nobody says how many.
DEFAULT_DRAFT = 4
#: Tokens of context that a model gets at least, and at least when it sees images.
MIN_CONTEXT, MIN_VISION_CONTEXT = 4, 2048
#: What an embedding model's batch may grow to when nobody sets one.
EMBEDDING_BATCH = 2048
#: Requests that one runner may serve at a time, whoever asks for more.
MAX_PARALLEL = 64

_INT64_MAX = 2**63 - 1


class RunnerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options that are fixed when a runner starts: a change of one reloads the model.

    ``num_parallel``: requests served at a time, each with ``num_ctx`` tokens; 0 leaves it to
    ``OLLAMA_NUM_PARALLEL``.
    """

    num_ctx: int
    num_parallel: int = 0
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int = DEFAULT_DRAFT


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Every option that has an effect. ``num_ctx`` is already cut to the trained length."""

    num_keep: int = 4
    seed: int = -1
    num_predict: int = -1
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    num_ctx: int
    num_parallel: int = 0
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int = DEFAULT_DRAFT

    def runner(self) -> RunnerOptions:
        """The part that the runner is started with."""
        return RunnerOptions(
            num_ctx=self.num_ctx,
            num_parallel=self.num_parallel,
            num_batch=self.num_batch,
            num_gpu=self.num_gpu,
            main_gpu=self.main_gpu,
            use_mmap=self.use_mmap,
            num_thread=self.num_thread,
            draft_num_predict=self.draft_num_predict,
        )


class Auto(msgspec.Struct, frozen=True, kw_only=True):
    """Which values nobody asked for, so that the daemon may choose and later keep another."""

    num_ctx: bool = False
    num_batch: bool = False
    use_mmap: bool = False


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """``context_length``: ``OLLAMA_CONTEXT_LENGTH``, 0 when unset. ``tier``: by video memory."""

    context_length: int = 0
    tier: int = 4096


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What the options depend on in a model; ``train_context`` is 0 when unknown."""

    train_context: int = 0
    embedding: bool = False
    vision: bool = False
    draft_file: bool = False


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """``ignored``: keys that mean nothing to us; the caller logs them once."""

    options: Options
    auto: Auto
    ignored: tuple[str, ...] = ()


def resolve(
    model: Mapping[str, Any] | None,
    request: Mapping[str, Any] | None,
    *,
    defaults: Defaults,
    traits: Traits,
) -> Resolved:
    """Options in force for one request (4.2 rules 1 to 6 and 8).

    ``model`` are the parameters stored with it, ``request`` the request's ``options``; both as
    decoded JSON. Raises OllamadError (status 500) for a value of the wrong type, BadRequest for a
    number of slots that no runner has.
    """
    given: dict[str, Any] = {}
    ignored: list[str] = []
    for source in (model, request):
        for key, value in (source or {}).items():
            convert = _CONVERTERS.get(key)
            if convert is None:
                ignored.append(key)
            elif value is not None:
                given[key] = convert(key, value)
    auto = Auto(
        num_ctx="num_ctx" not in given and defaults.context_length <= 0,
        num_batch="num_batch" not in given and not traits.embedding,
        use_mmap="use_mmap" not in given,
    )
    num_ctx = given.get("num_ctx")
    if num_ctx is None:
        num_ctx = defaults.context_length if defaults.context_length > 0 else defaults.tier
    given["num_ctx"] = effective_context(num_ctx, traits)
    if traits.embedding:
        given.setdefault("num_batch", min(EMBEDDING_BATCH, given["num_ctx"]))
    if not traits.draft_file:
        given.setdefault("draft_num_predict", 0)
    return Resolved(options=Options(**given), auto=auto, ignored=tuple(dict.fromkeys(ignored)))


def effective_context(num_ctx: int, traits: Traits) -> int:
    """``num_ctx`` raised to the floors, then cut to the trained length (4.2 rules 6 and 8)."""
    num_ctx = max(num_ctx, MIN_VISION_CONTEXT if traits.vision else MIN_CONTEXT)
    return min(num_ctx, traits.train_context) if traits.train_context > 0 else num_ctx


def context_tier(device_memory: Sequence[int], overhead: int = 0) -> int:
    """The default context for these total bytes per device (4.2, "VRAM tier")."""
    # Each term stops at zero: an overhead larger than the device must not wrap around.
    total = sum(max(0, size - overhead) for size in device_memory)
    if total >= 47 << 30:
        return 262144
    return 32768 if total >= 23 << 30 else 4096


def lower_tier(num_ctx: int) -> int | None:
    """The next smaller automatic context after memory ran out, if there is one (4.6 step 7)."""
    if num_ctx > 32768:
        return 32768
    return 4096 if num_ctx > 4096 else None


def shifts_context(requested: bool | None, families: Collection[str]) -> bool:
    """Whether the runner may drop old tokens while generating (4.2 rule 7)."""
    return requested if requested is not None else "deepseek2" not in families


# --- one converter per JSON type; each raises with the contract's text ---------------------------


def _wrong_type(key: str, wanted: str) -> OllamadError:
    return OllamadError(f'option "{key}" must be of {wanted}')


def _integer(key: str, value: Any) -> int:
    # bool is an int to Python, not to JSON. A fraction is cut off, what int64 cannot hold bounded.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong_type(key, "type integer")
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong_type(key, "type integer")
    return max(-_INT64_MAX - 1, min(_INT64_MAX, int(value)))


def _slots(key: str, value: Any) -> int:
    number = _integer(key, value)
    if not 0 <= number <= MAX_PARALLEL:
        raise BadRequest(f'option "{key}" must be from 1 to {MAX_PARALLEL}')
    return number


def _float(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong_type(key, "type float32")
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        raise _wrong_type(key, "type float32") from None


def _boolean(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(key, "type boolean")
    return value


def _strings(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):  # beyond the reference: one string is a list of one
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise _wrong_type(key, "type array")
    if not all(isinstance(item, str) for item in value):
        raise _wrong_type(key, "an array of strings")
    return tuple(value)


_CONVERTERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(
        (
            "num_keep",
            "seed",
            "num_predict",
            "top_k",
            "repeat_last_n",
            "num_ctx",
            "num_batch",
            "num_gpu",
            "main_gpu",
            "num_thread",
            "draft_num_predict",
        ),
        _integer,
    ),
    **dict.fromkeys(
        (
            "top_p",
            "min_p",
            "typical_p",
            "temperature",
            "repeat_penalty",
            "presence_penalty",
            "frequency_penalty",
        ),
        _float,
    ),
    "num_parallel": _slots,
    "use_mmap": _boolean,
    "stop": _strings,
}
