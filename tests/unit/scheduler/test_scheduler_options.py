"""http-api 8.3 and C4, runners-and-scheduling 4.2 and 8.7."""

from __future__ import annotations

from typing import Any

import pytest

from ollamad.errors import BadRequest, OllamadError
from ollamad.scheduler.options import (
    Auto,
    Defaults,
    Resolved,
    Traits,
    context_tier,
    lower_tier,
    resolve,
    shifts_context,
)

MIB = 1 << 20


def resolved(
    request: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    *,
    env: int = 0,
    tier: int = 4096,
    **traits: Any,
) -> Resolved:
    return resolve(
        model,
        request,
        defaults=Defaults(context_length=env, tier=tier),
        traits=Traits(**traits),
    )


def test_defaults() -> None:
    result = resolved()
    options = result.options
    assert (options.num_keep, options.seed, options.num_predict, options.top_k) == (4, -1, -1, 40)
    assert (options.top_p, options.min_p, options.typical_p) == (0.9, 0, 1.0)
    assert (options.repeat_last_n, options.temperature, options.repeat_penalty) == (64, 0.8, 1.0)
    assert (options.presence_penalty, options.frequency_penalty, options.stop) == (0, 0, ())
    assert (options.num_ctx, options.num_batch, options.num_gpu) == (4096, 512, -1)
    assert (options.main_gpu, options.use_mmap, options.num_thread) == (None, None, 0)
    assert options.draft_num_predict == 0
    assert result.auto == Auto(num_ctx=True, num_batch=True, use_mmap=True)
    assert options.runner().num_ctx == 4096


@pytest.mark.parametrize(
    ("sources", "num_ctx", "auto"),
    [
        ({"tier": 32768}, 32768, True),
        ({"tier": 32768, "env": 8192}, 8192, False),
        ({"tier": 32768, "env": 8192, "model": {"num_ctx": 16384}}, 16384, False),
        (
            {
                "tier": 32768,
                "env": 8192,
                "model": {"num_ctx": 16384},
                "request": {"num_ctx": 4096},
            },
            4096,
            False,
        ),
        ({"request": {"num_ctx": None}}, 4096, True),
        ({"request": {"num_ctx": 1}}, 4, False),
        ({"request": {"num_ctx": 128}, "vision": True}, 2048, False),
        ({"request": {"num_ctx": 9000}, "train_context": 8192}, 8192, False),
        ({"tier": 262144, "train_context": 8192}, 8192, True),
        ({"request": {"num_ctx": 1024}, "train_context": 8192}, 1024, False),
        ({"request": {"num_ctx": 128}, "train_context": 512, "vision": True}, 512, False),
    ],
)
def test_context(sources: dict[str, Any], num_ctx: int, auto: bool) -> None:
    result = resolved(**sources)
    assert result.options.num_ctx == num_ctx
    assert result.auto.num_ctx is auto


@pytest.mark.parametrize(
    ("sources", "num_batch"),
    [
        ({"request": {"num_ctx": 40960}, "train_context": 40960}, 2048),
        ({"request": {"num_ctx": 1024}, "train_context": 40960}, 1024),
        ({"request": {"num_ctx": 40960}, "train_context": 512}, 512),
        ({"model": {"num_batch": 1024}}, 1024),
        ({"model": {"num_batch": 1024}, "request": {"num_batch": 4096}}, 4096),
    ],
)
def test_batch_of_an_embedding_model(sources: dict[str, Any], num_batch: int) -> None:
    result = resolved(**sources, embedding=True)
    assert result.options.num_batch == num_batch
    assert result.auto.num_batch is False


@pytest.mark.parametrize(
    ("draft_file", "model", "request_", "expected"),
    [
        (True, None, None, 4),
        (False, None, None, 0),
        (False, {"draft_num_predict": 4}, None, 4),
        (False, None, {"draft_num_predict": 8}, 8),
        (True, None, {"draft_num_predict": 0}, 0),
    ],
)
def test_draft(draft_file: bool, model: Any, request_: Any, expected: int) -> None:
    assert resolved(request_, model, draft_file=draft_file).options.draft_num_predict == expected


def test_values_are_coerced_like_the_reference_does() -> None:
    options = resolved(
        {
            "num_ctx": 512.9,
            "num_predict": -2.9,
            "temperature": 1,
            "use_mmap": False,
            "main_gpu": 0,
            "stop": "END",
            "top_k": 1e300,
            "num_keep": 10**400,
        }
    ).options
    assert (options.num_ctx, options.num_predict, options.temperature) == (512, -2, 1.0)
    assert options.use_mmap is False
    assert options.main_gpu == 0
    assert options.stop == ("END",)
    assert options.top_k == options.num_keep == 2**63 - 1
    assert resolved({"use_mmap": False}).auto.use_mmap is False


@pytest.mark.parametrize(
    ("model", "request_", "expected"),
    [
        (None, None, 0),
        ({"num_parallel": 4}, None, 4),
        ({"num_parallel": 4}, {"num_parallel": 2.9}, 2),
        ({"num_parallel": 4}, {"num_parallel": None}, 4),
        ({"num_parallel": 4}, {"num_parallel": 0}, 0),
        (None, {"num_parallel": 64}, 64),
    ],
)
def test_parallel_slots(model: Any, request_: Any, expected: int) -> None:
    options = resolved(request_, model).options
    assert options.num_parallel == options.runner().num_parallel == expected


@pytest.mark.parametrize("value", [-1, 65, 1 << 70])
def test_no_runner_has_such_a_number_of_slots(value: int) -> None:
    with pytest.raises(BadRequest, match=r'^option "num_parallel" must be from 1 to 64$'):
        resolved({"num_parallel": value})


def test_the_requests_stops_replace_the_models() -> None:
    assert resolved({"stop": ["b"]}, {"stop": ["a", "c"]}).options.stop == ("b",)
    assert resolved({"stop": None}, {"stop": ["a", "c"]}).options.stop == ("a", "c")


def test_unknown_and_null_options_are_left_out() -> None:
    result = resolved({"unknown": 1, "mirostat": 2, "temperature": None}, {"numa": True})
    assert result.ignored == ("numa", "unknown", "mirostat")
    assert result.options.temperature == 0.8


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("temperature", "hot", "type float32"),
        ("temperature", True, "type float32"),
        ("temperature", 10**400, "type float32"),
        ("num_ctx", "x", "type integer"),
        ("num_ctx", "4096", "type integer"),
        ("num_ctx", True, "type integer"),
        ("num_ctx", float("nan"), "type integer"),
        ("use_mmap", 1, "type boolean"),
        ("stop", 1, "type array"),
        ("stop", [1], "an array of strings"),
    ],
)
def test_a_wrong_type_is_the_servers_error(key: str, value: Any, wanted: str) -> None:
    for sources in ({"request": {key: value}}, {"model": {key: value}}):
        with pytest.raises(OllamadError) as caught:
            resolved(**sources)
        assert caught.value.message == f'option "{key}" must be of {wanted}'
        assert caught.value.status == 500


@pytest.mark.parametrize(
    ("devices", "overhead", "tier"),
    [
        ([], 0, 4096),
        ([48127 * MIB], 0, 32768),
        ([48128 * MIB], 0, 262144),
        ([24564 * MIB], 0, 32768),
        ([24564 * MIB, 12288 * MIB], 0, 32768),
        ([12288 * MIB], 0, 4096),
        ([8128 * MIB], 10_000_000_000, 4096),
    ],
)
def test_context_tier(devices: list[int], overhead: int, tier: int) -> None:
    assert context_tier(devices, overhead) == tier


def test_lower_tier() -> None:
    assert [lower_tier(n) for n in (262144, 131072, 32769)] == [32768] * 3
    assert [lower_tier(n) for n in (32768, 8192, 4097)] == [4096] * 3
    assert [lower_tier(n) for n in (4096, 2048)] == [None] * 2


def test_context_shift() -> None:
    assert shifts_context(None, ["llama"]) is True
    assert shifts_context(None, ["llama", "deepseek2"]) is False
    assert shifts_context(True, ["deepseek2"]) is True
    assert shifts_context(False, ["llama"]) is False
