"""The embedded launcher's flags against the wheel's own parameters (2.16)."""

import dataclasses

import pytest

from ollamad.hardware.device import Device
from ollamad.runners import embedded
from ollamad.runners.address import TcpAddress, UnixAddress
from ollamad.runners.command import Launch, flags
from ollamad.runners.embedded import UsageError, parameters

xllamacpp = pytest.importorskip("xllamacpp", reason="the package xllamacpp is not installed")

EVERYTHING = Launch(
    model_path="/m",
    arch="qwen3vl",
    num_ctx=512,
    parallel=2,
    kv_unified=True,
    kv_pool=2000,
    projector="/p",
    projector_offload=False,
    num_batch=64,
    num_gpu=3,
    num_thread=5,
    main_gpu=1,
    use_mmap=False,
    flash_attention="on",
    kv_cache_type="q8_0",
    cache_ram_mib=17,
    jinja=False,
    draft_type="draft-mtp",
    draft_path="/d",
    draft_max=4,
    fit=False,
    devices=(Device(id="0", library="CUDA", name="CUDA0"),),
)


def test_every_flag_of_the_daemon_sets_its_parameter() -> None:
    params = parameters(
        xllamacpp, flags(EVERYTHING, UnixAddress("/x.sock")), {"LLAMA_API_KEY": "k"}
    )
    assert params.model.path == "/m"
    assert params.hostnames == ["/x.sock"]
    assert params.api_keys == ["k"]
    assert (params.n_ctx, params.n_parallel) == (2000, 2)
    assert params.kv_unified
    assert params.kv_unified_per_slot == 512
    assert (params.n_batch, params.n_ubatch) == (64, 64)
    assert params.n_gpu_layers == 3
    assert params.cpuparams.n_threads == 5
    assert params.main_gpu == 1
    assert params.split_mode.name.endswith("NONE")
    assert params.load_mode.name.endswith("NONE")
    assert params.flash_attn_type.name.endswith("ENABLED")
    assert params.cache_type_k.name == params.cache_type_v.name == "GGML_TYPE_Q8_0"
    assert params.cache_ram_mib == 17
    assert params.use_jinja
    assert params.chat_template == "chatml"
    assert params.mmproj.path == "/p"
    assert not params.mmproj_use_gpu
    assert params.image_min_tokens == 1024
    assert [kind.name for kind in params.speculative.types] == ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"]
    assert params.speculative.draft.n_max == 4
    assert params.speculative.draft.mparams.path == "/d"
    assert params.ctx_shift
    assert params.n_keep == 4
    assert params.verbosity == 4
    assert not params.endpoint_slots
    assert not params.fit_params
    assert not params.ui
    assert not params.no_op_offload


def test_a_port_and_a_direct_load() -> None:
    launch = dataclasses.replace(
        EVERYTHING, direct_io=True, fit=True, main_gpu=None, tensor_split=(3, 1.5)
    )
    params = parameters(xllamacpp, flags(launch, TcpAddress("127.0.0.1", 7)), {})
    assert (params.hostnames, params.port) == (["127.0.0.1"], 7)
    assert params.load_mode.name.endswith("DIRECT_IO")
    assert params.fit_params
    assert not params.split_mode.name.endswith("NONE")
    assert list(params.tensor_split)[:3] == [3, 1.5, 0]
    assert params.api_keys == []


def test_without_a_device_nothing_is_offloaded() -> None:
    launch = dataclasses.replace(EVERYTHING, devices=(), num_gpu=-1, projector_offload=True)
    params = parameters(xllamacpp, flags(launch, TcpAddress("127.0.0.1", 7)), {})
    assert params.n_gpu_layers == 0
    assert params.no_op_offload
    assert not params.mmproj_use_gpu
    with pytest.raises(UsageError, match="--device"):
        parameters(xllamacpp, ["-m", "/m", "--device", "CUDA0"], {})


def test_an_embedding_model_lowers_its_batch() -> None:
    params = parameters(xllamacpp, ["-m", "/m", "--embedding", "-b", "512", "-ub", "128"], {})
    assert params.embedding
    assert (params.n_batch, params.n_ubatch) == (128, 128)


def test_adapters(tmp_path: object) -> None:
    path = f"{tmp_path}/a"
    with open(path, "w"):  # noqa: PTH123
        pass
    params = parameters(xllamacpp, ["-m", "/m", "--lora", path, "--lora", path], {})
    assert [adapter.path for adapter in params.lora_adapters] == [path, path]


def test_the_users_fit_settings_are_inherited_and_flags_beat_them() -> None:
    environment = {"LLAMA_ARG_FIT": "off", "LLAMA_ARG_FIT_TARGET": "512,256"}
    params = parameters(xllamacpp, ["-m", "/m"], environment)
    assert not params.fit_params
    assert list(params.fit_params_target)[:3] == [512 << 20, 256 << 20, 1 << 30]
    assert parameters(xllamacpp, ["-m", "/m", "--fit", "on"], environment).fit_params


def test_where_to_look_for_video_programs_is_inherited() -> None:
    environment = {"LLAMA_ARG_VIDEO_FFMPEG_DIR": "/dev/null"}
    assert parameters(xllamacpp, ["-m", "/m"], environment).video_ffmpeg_bin_dir == "/dev/null"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-m", "/m", "--frobnicate", "3"], "invalid argument: --frobnicate"),
        (["-m", "/m", "stray"], "invalid argument: stray"),
        (["-m", "/m", "-c"], "expected value for argument: -c"),
        (["-m", "/m", "-c", "many"], 'error while handling argument "-c"'),
        (["-m", "/m", "--cache-type-k", "foo"], "Unsupported cache type: foo"),
        (["-m", "/m", "--flash-attn", "maybe"], "unknown value: 'maybe'"),
        (["-m", "/m", "--lora", "/none"], "no such file: /none"),
        (["-m", "/m", "--fit", "perhaps"], 'error while handling argument "--fit"'),
        (["-m", "/m", "--spec-type", "draft-x"], "unknown speculative type: draft-x"),
        (["-c", "4"], "no model"),
    ],
)
def test_bad_flags_are_named(argv: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parameters(xllamacpp, argv, {})
    assert text in str(caught.value)


def test_every_parameter_of_the_table_exists() -> None:
    values = {"--pooling": "mean", "--split-mode": "row", "--reasoning-format": "none"}
    argv = ["-m", "/m"]
    for name in embedded._SWITCHES:
        argv.append(name)
    for name in ("--threads-http", "--cache-reuse", "--ctx-checkpoints", "--sse-ping-interval"):
        argv += [name, "3"]
    for name in ("-to", "-fitc", "--image-max-tokens", "-tb", "-ts", "-sps", "-fitt"):
        argv += [name, "3"]
    for name, value in values.items():
        argv += [name, value]
    parameters(xllamacpp, argv, {})
