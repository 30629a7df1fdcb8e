"""runners-and-scheduling 8.3: the table of command lines."""

import dataclasses
import shlex

import pytest

from ollamad.errors import LoadError
from ollamad.hardware.device import Device
from ollamad.runners.address import TcpAddress, UnixAddress
from ollamad.runners.command import Launch, build, flags
from ollamad.runners.kinds import RunnerKind

KIND = RunnerKind(name="configured", program=("/bin/llama-server",), origin="test")
TCP = TcpAddress("127.0.0.1", 5000)
CUDA0 = Device(id="0", library="CUDA", name="CUDA0")
#: What ours always adds at the end without a device.
OURS = ["--no-slots", "--fit", "off", "--device", "none"]

#: SmolLM2 with a TEMPLATE in use, no GPU, two slots, nothing set.
SMOL = Launch(
    model_path="/blob",
    num_ctx=4096,
    train_ctx=8192,
    parallel=2,
    num_batch=1024,
    use_mmap=False,
    jinja=False,
)


def line(**changes: object) -> str:
    out = flags(dataclasses.replace(SMOL, **changes), TCP)  # type: ignore[arg-type]
    assert out[-len(OURS) :] == OURS
    return shlex.join(out[: -len(OURS)])


def test_the_whole_line() -> None:
    assert line() == (
        "--model /blob --port 5000 --host 127.0.0.1 --no-webui --offline -c 8192 -np 2 "
        "--log-verbosity 4 --no-log-prefix --no-log-timestamps --chat-template chatml "
        "--load-mode none --flash-attn auto -b 1024 -ub 1024 --context-shift --keep 4"
    )


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"num_ctx": 512, "num_batch": 512}, "-c 1024 -np 2"),
        ({"num_ctx": 1}, "-c 8 -np 2"),
        ({"num_ctx": 100000}, "-c 16384 -np 2"),
        ({"num_ctx": 32768, "train_ctx": 0}, "-c 65536 -np 2"),
        ({"num_gpu": 0}, "-b 1024 -ub 1024 -ngl 0 --context-shift"),
        ({"num_gpu": 5}, "-ub 1024 -ngl 5 --context-shift"),
        (
            {"num_thread": 1, "num_batch": 64},
            "--flash-attn auto -b 64 -ub 64 -t 1 --context-shift --keep 4",
        ),
        ({"use_mmap": True}, "--chat-template chatml --flash-attn auto"),
        ({"use_mmap": None}, "--chat-template chatml --flash-attn auto"),
        ({"use_mmap": False, "direct_io": True}, "chatml --load-mode dio --flash-attn"),
        ({"main_gpu": 0}, "--split-mode none --main-gpu 0 --context-shift"),
        ({"main_gpu": 1}, "--split-mode none --main-gpu 1 --context-shift"),
        ({"tensor_split": (20000, 10000.5)}, "-ub 1024 --tensor-split 20000,10000.5 --context"),
        (
            {"tensor_split": (1, 2), "main_gpu": 1, "num_gpu": 7},
            "-ngl 7 --split-mode none --main-gpu 1 --context-shift",
        ),
        ({"num_batch": 0}, "--flash-attn auto --context-shift"),
        ({"kv_cache_type": "q8_0"}, "--load-mode none --cache-type-k q8_0 --cache-type-v q8_0"),
        ({"flash_attention": "off"}, "--flash-attn off"),
        ({"projector": "/p"}, "chatml --mmproj /p --load-mode"),
        (
            {"projector": "/p", "projector_offload": False},
            "chatml --mmproj /p --no-mmproj-offload --load-mode",
        ),
        ({"adapters": ("/a", "/b")}, "chatml --lora /a --lora /b --load-mode"),
        (
            {"draft_type": "draft-mtp", "draft_max": 4},
            "chatml --spec-type draft-mtp --spec-draft-n-max 4 --spec-draft-backend-sampling",
        ),
        (
            {"draft_type": "draft-mtp", "draft_max": 8, "draft_path": "draft.gguf"},
            "--spec-draft-n-max 8 --spec-draft-backend-sampling --spec-draft-model draft.gguf",
        ),
        (
            {"draft_type": "draft-dflash", "draft_max": 4, "draft_path": "draft.gguf"},
            "--spec-type draft-dflash --spec-draft-n-max 4 --spec-draft-model draft.gguf --load",
        ),
        (
            {"draft_max": 4, "draft_path": "draft.gguf"},
            "chatml --spec-draft-n-max 4 --spec-draft-model draft.gguf --load",
        ),
        ({"arch": "qwen3vl"}, "chatml --image-min-tokens 1024 --load-mode"),
    ],
)
def test_a_part_of_the_line(changes: dict[str, object], part: str) -> None:
    assert part in line(**changes)


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"context_shift": False}, "--context-shift"),
        ({"context_shift": False}, "--keep"),
        ({"num_keep": 0}, "--keep"),
        ({"num_gpu": -1}, "-ngl"),
        ({"jinja": True}, "jinja"),
        ({"arch": "llama"}, "image"),
        ({"draft_type": "draft-mtp", "draft_max": 0}, "--spec"),
        ({"draft_max": 4}, "--spec"),
    ],
)
def test_what_the_line_leaves_out(changes: dict[str, object], absent: str) -> None:
    assert absent not in line(**changes)


@pytest.mark.parametrize(
    ("ctx", "batch", "parallel", "expected"),
    [
        (512, 2048, 2, "--embedding -b 1024 -ub 1024"),
        (40960, 2048, 1, "--embedding -b 2048 -ub 2048"),
        (1024, 2048, 1, "--embedding -b 1024 -ub 1024"),
        (1024, 4096, 2, "--embedding -b 2048 -ub 2048"),
        (1024, 0, 1, "--embedding --context-shift"),
    ],
)
def test_an_embedding_batch_fits_the_context(
    ctx: int, batch: int, parallel: int, expected: str
) -> None:
    changes = {"num_ctx": ctx, "num_batch": batch, "parallel": parallel, "train_ctx": 0}
    assert expected in line(embedding=True, **changes)


def test_a_bert_model() -> None:
    launch = Launch(
        model_path="/b", num_ctx=4096, train_ctx=512, num_batch=1024, embedding=True, use_mmap=False
    )
    assert shlex.join(flags(launch, TCP)[8:]) == (
        "-c 512 -np 1 --log-verbosity 4 --no-log-prefix --no-log-timestamps --load-mode none "
        "--flash-attn auto --embedding -b 512 -ub 512 --context-shift --keep 4 "
        "--no-slots --fit off --device none"
    )


def test_a_socket_takes_the_place_of_the_port() -> None:
    out = build(SMOL, KIND, UnixAddress("/run/x.sock")).argv
    assert out[:5] == ("/bin/llama-server", "--model", "/blob", "--host", "/run/x.sock")
    assert "--port" not in out


def test_one_cache_for_all_slots_keeps_each_slot_to_its_context() -> None:
    out = flags(dataclasses.replace(SMOL, kv_unified=True, kv_pool=6000), TCP)
    assert out[out.index("-c") + 1] == "6000"
    assert out[out.index("--kv-unified") :][:3] == ["--kv-unified", "--kv-unified-per-slot", "4096"]


@pytest.mark.parametrize(
    ("changes", "tail"),
    [
        ({"cache_ram_mib": 0}, ["--cache-ram", "0", *OURS]),
        ({"fit": True}, ["--no-slots", "--device", "none"]),
        ({"pooling": "rank"}, ["--pooling", "rank", *OURS]),
        ({"slot_save_path": "/s"}, ["--slot-save-path", "/s", *OURS[1:]]),
        ({"devices": (CUDA0,)}, ["--no-slots", "--fit", "off"]),
        ({"devices": (CUDA0,), "fit": True}, ["--no-slots"]),
    ],
)
def test_additions(changes: dict[str, object], tail: list[str]) -> None:
    out = flags(dataclasses.replace(SMOL, **changes), TCP)  # type: ignore[arg-type]
    assert out[out.index("--keep") + 2 :] == tail


@pytest.mark.parametrize("path", ["/a,b", '/a"b'])
def test_an_adapter_that_the_parser_would_split_is_refused(path: str) -> None:
    with pytest.raises(LoadError, match="adapter path"):
        flags(dataclasses.replace(SMOL, adapters=(path,)), TCP)
