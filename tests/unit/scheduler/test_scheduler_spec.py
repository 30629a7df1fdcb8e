"""When a loaded model serves a request as it is: runners-and-scheduling 4.4 and 8.7."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollamad.scheduler.options import Auto, RunnerOptions
from ollamad.scheduler.spec import (
    ModelShape,
    ModelSpec,
    may_run_parallel,
    model_key,
    reload_reason,
)

ALL_AUTO = Auto(num_ctx=True, num_batch=True, use_mmap=True)


def spec(auto: Auto = ALL_AUTO, train: int = 0, num_ctx: int = 4096, **options: Any) -> ModelSpec:
    return ModelSpec(
        key="/m",
        name="m",
        model_path=Path("/m"),
        shape=ModelShape(weight_bytes=1, train_context=train),
        options=RunnerOptions(num_ctx=num_ctx, **options),
        auto=auto,
    )


#: What a default load on a machine without a device leaves: mapping was switched off by us.
DEFAULT = spec(use_mmap=False)
EXPLICIT_CTX = Auto(num_batch=True, use_mmap=True)
EXPLICIT_BATCH = Auto(num_ctx=True, use_mmap=True)
EXPLICIT_MMAP = Auto(num_ctx=True, num_batch=True)


@pytest.mark.parametrize(
    ("loaded", "wanted", "reason"),
    [
        (DEFAULT, spec(), None),
        (DEFAULT, spec(EXPLICIT_CTX), None),
        (DEFAULT, spec(EXPLICIT_BATCH, num_batch=512), None),
        (DEFAULT, spec(EXPLICIT_MMAP, use_mmap=False), None),
        (DEFAULT, spec(EXPLICIT_MMAP, use_mmap=True), "use_mmap"),
        (spec(EXPLICIT_MMAP, use_mmap=False), spec(), "use_mmap"),
        (spec(EXPLICIT_CTX, num_ctx=2048), spec(), "num_ctx"),
        (spec(EXPLICIT_CTX, train=8192, num_ctx=8192), spec(EXPLICIT_CTX, num_ctx=9000), None),
        (spec(num_ctx=131072), spec(num_ctx=262144), None),
        (spec(num_ctx=131072), spec(EXPLICIT_CTX, num_ctx=262144), "num_ctx"),
        (spec(train=2048, num_ctx=2048), spec(EXPLICIT_CTX, num_ctx=262144), None),
        (spec(train=2048, num_ctx=2048), spec(EXPLICIT_CTX, num_ctx=1024), "num_ctx"),
        (spec(num_batch=1024), spec(num_batch=512), None),
        (spec(num_batch=1024), spec(EXPLICIT_BATCH, num_batch=512), "num_batch"),
        (DEFAULT, spec(EXPLICIT_BATCH, num_batch=1234), "num_batch"),
        (DEFAULT, spec(num_gpu=99), "num_gpu"),
        (spec(num_gpu=99), spec(num_gpu=-1), None),
        (spec(num_gpu=0), spec(num_gpu=-1), None),
        (DEFAULT, spec(num_thread=2), "num_thread"),
        (spec(num_thread=2), spec(), "num_thread"),
        (DEFAULT, spec(main_gpu=0), "main_gpu"),
        (spec(main_gpu=0), spec(), "main_gpu"),
        (spec(num_parallel=2), spec(num_parallel=4), "num_parallel"),
        (spec(num_parallel=4), spec(num_parallel=4), None),
        (spec(num_parallel=4), spec(), None),
        (spec(num_parallel=1), spec(num_parallel=4), "num_parallel"),
        (spec(draft_num_predict=0), spec(draft_num_predict=4), "draft_num_predict"),
    ],
)
def test_options(loaded: ModelSpec, wanted: ModelSpec, reason: str | None) -> None:
    assert reload_reason(loaded, wanted) == reason


def test_who_gets_one_slot_in_any_case_does_not_reload_for_more() -> None:
    asked = msgspec.structs.replace(spec(num_parallel=4), parallel_allowed=False)
    assert reload_reason(DEFAULT, asked) is None


@pytest.mark.parametrize(
    "change",
    [
        {"context_shift": False},
        {"adapters": (Path("/lora"),)},
        {"projectors": (Path("/mmproj"),)},
        {"draft": Path("/draft")},
        {"jinja": False},
    ],
)
def test_files_and_launch_mode(change: dict[str, Any]) -> None:
    changed = msgspec.structs.replace(DEFAULT, **change)
    assert reload_reason(DEFAULT, changed) == reload_reason(changed, DEFAULT) == next(iter(change))


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"digest": "d"}, {"info": 1}, {"num_keep": 9}]
)
def test_two_names_of_the_same_weights_share_a_runner(change: dict[str, Any]) -> None:
    assert reload_reason(DEFAULT, msgspec.structs.replace(DEFAULT, **change)) is None


def test_key() -> None:
    assert model_key([Path("/b/1")], manifest_digest="d", name="n") == "/b/1"
    assert model_key([], manifest_digest="d", name="n") == "digest:d"
    assert model_key([], name="n") == "name:n"


def test_key_of_shards() -> None:
    """The first shard may be a header that many models share."""
    keys = {model_key([Path("/b/1"), Path("/b") / last]) for last in ("2", "3")}
    assert len(keys | {model_key([Path("/b/1")])}) == 3


def test_parallel() -> None:
    assert may_run_parallel(True, ["llama"])
    assert not may_run_parallel(False, ["llama"])
    assert not may_run_parallel(True, ["llama", "qwen3vl"])
