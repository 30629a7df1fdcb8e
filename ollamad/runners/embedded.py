"""llama-server's command line for the server inside the wheel ``xllamacpp``.

    python -m ollamad.runners.embedded --model <path> --host <socket> ...

Takes the flags that ``ollamad.runners.command`` writes and some more, sets the wheel's parameters
from them and serves until it is killed. A flag that it does not know is an error that names it: a
setting that is silently dropped would give wrong answers. The API key comes from the environment,
where other users cannot read it. Spec: runners-and-scheduling 2.16.

It imports nothing of ours: every load waits for it.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

#: (parameters, value of the flag) -> None. ``Any`` because the wheel has no types.
Setter = Callable[[Any, str], None]


#: Variables that stand for flags.
_VARIABLES = (
    ("LLAMA_ARG_FIT", "--fit"),
    ("LLAMA_ARG_FIT_TARGET", "--fit-target"),
    ("LLAMA_ARG_VIDEO_FFMPEG_DIR", "--video-ffmpeg-dir"),
)


class UsageError(Exception):
    """A flag that is unknown, lacks its value or has a bad one."""


def main(argv: list[str]) -> NoReturn:
    """Runs the server, or answers ``--version`` and ``--list-devices``. Never returns."""
    if "--version" in argv:
        print_version()
        _leave(0)
    import xllamacpp  # noqa: PLC0415 - 106 MB, and not needed to tell the version

    if "--list-devices" in argv:
        print_devices(xllamacpp)
        _leave(0)
    try:
        params = parameters(xllamacpp, argv, os.environ)
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        _leave(1)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        # The reason is in the log above, where the daemon looks for it.
        _leave(1)
    import threading  # noqa: PLC0415

    # The server lives in threads of its own; SIGTERM keeps its default action, which ends us all.
    threading.Event().wait()
    del server
    _leave(0)


def _leave(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: the wheel's threads must not be torn down while they run.
    os._exit(status)


def parameters(
    wheel: Any, argv: list[str], environment: "os._Environ[str] | dict[str, str]"
) -> Any:
    """The wheel's ``CommonParams`` for these flags. Raises ``UsageError``."""
    params = wheel.CommonParams()
    params.ui = False
    if key := environment.get("LLAMA_API_KEY"):
        params.api_keys = [key]
    for variable, name in _VARIABLES:
        if value := environment.get(variable):
            _apply(_FLAGS[name], wheel, params, name, value)
    position = 0
    while position < len(argv):
        name, joined, value = argv[position].partition("=")
        position += 1
        if not joined and name in _SWITCHES:
            _SWITCHES[name](wheel, params)
            continue
        setter = _FLAGS.get(name)
        if setter is None:
            raise UsageError(f"invalid argument: {name}")
        if not joined:
            if position == len(argv):
                raise UsageError(f"expected value for argument: {name}")
            value = argv[position]
            position += 1
        _apply(setter, wheel, params, name, value)
    if not params.model.path:
        raise UsageError("no model: --model <path> is missing")
    if params.embedding:
        # What llama-server does: a sequence must fit into one physical batch.
        params.n_batch = min(params.n_batch, params.n_ubatch)
    return params


def _apply(setter: Any, wheel: Any, params: Any, name: str, value: str) -> None:
    try:
        setter(wheel, params, value)
    except (ValueError, KeyError, OverflowError) as error:
        raise UsageError(f'error while handling argument "{name}": {error}') from error


def _text(attribute: str) -> Any:
    return lambda wheel, params, value: setattr(params, attribute, value)


def _number(attribute: str) -> Any:
    return lambda wheel, params, value: setattr(params, attribute, int(value))


def _real(attribute: str) -> Any:
    return lambda wheel, params, value: setattr(params, attribute, float(value))


def _switch(attribute: str, state: object) -> Any:
    return lambda wheel, params: setattr(params, attribute, state)


def _nothing(*_: object) -> None:
    """A flag that is always so for the embedded server."""


def _model(wheel: Any, params: Any, value: str) -> None:
    params.model.path = value


def _host(wheel: Any, params: Any, value: str) -> None:
    params.hostnames = [value]


def _projector(wheel: Any, params: Any, value: str) -> None:
    params.mmproj.path = value


def _video_programs(wheel: Any, params: Any, value: str) -> None:
    if hasattr(params, "video_ffmpeg_bin_dir"):  # older wheels run no such program
        params.video_ffmpeg_bin_dir = value


def _threads(wheel: Any, params: Any, value: str) -> None:
    params.cpuparams.n_threads = int(value)


def _batch_threads(wheel: Any, params: Any, value: str) -> None:
    params.cpuparams_batch.n_threads = int(value)


def _adapter(wheel: Any, params: Any, value: str) -> None:
    if not os.path.isfile(value):  # noqa: PTH113
        raise ValueError(f"no such file: {value}")
    adapter = wheel.CommonAdapterLoraInfo()
    adapter.path = value
    adapter.scale = 1.0
    params.lora_adapters = [*params.lora_adapters, adapter]


def _choice(attribute: str, enumeration: str, prefix: str, names: dict[str, str]) -> Any:
    """Sets ``attribute`` to the member of the wheel's enumeration that the flag's word means."""

    def choose(wheel: Any, params: Any, value: str) -> None:
        if value not in names:
            raise ValueError(f"unknown value: '{value}' (one of {', '.join(names)})")
        setattr(params, attribute, getattr(getattr(wheel, enumeration), prefix + names[value]))

    return choose


def _cache_type(attribute: str) -> Any:
    def choose(wheel: Any, params: Any, value: str) -> None:
        if value not in CACHE_TYPES:
            raise ValueError(f"Unsupported cache type: {value}")
        setattr(params, attribute, getattr(wheel.ggml_type, "GGML_TYPE_" + value.upper()))

    return choose


#: What llama.cpp can keep keys and values in.
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


def _layers(wheel: Any, params: Any, value: str) -> None:
    params.n_gpu_layers = {"auto": -1, "all": -2}[value] if value.isalpha() else int(value)


def _fit(wheel: Any, params: Any, value: str) -> None:
    params.fit_params = _on(value)


def _fit_target(wheel: Any, params: Any, value: str) -> None:
    given = [int(part) * 1024 * 1024 for part in value.split(",")]
    slots = len(params.fit_params_target)
    if len(given) == 1:
        given *= slots
    params.fit_params_target = (given + list(params.fit_params_target)[len(given) :])[:slots]


def _devices(wheel: Any, params: Any, value: str) -> None:
    if value != "none":
        raise ValueError("devices are chosen by the variables of their libraries")
    params.n_gpu_layers = 0
    params.mmproj_use_gpu = False
    params.no_op_offload = True


def _tensor_split(wheel: Any, params: Any, value: str) -> None:
    given = [float(part) for part in value.replace("/", ",").split(",")]
    slots = len(params.tensor_split)
    params.tensor_split = (given + [0.0] * slots)[:slots]


def _on(value: str) -> bool:
    states = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}
    return states[value.lower()]


def _draft_types(wheel: Any, params: Any, value: str) -> None:
    prefix = "COMMON_SPECULATIVE_TYPE_"
    members = []
    for word in value.split(","):
        name = prefix + word.upper().replace("-", "_")
        if not hasattr(wheel.common_speculative_type, name):
            raise ValueError(f"unknown speculative type: {word}")
        members.append(getattr(wheel.common_speculative_type, name))
    params.speculative.types = members


def _draft_max(wheel: Any, params: Any, value: str) -> None:
    params.speculative.draft.n_max = int(value)


def _draft_model(wheel: Any, params: Any, value: str) -> None:
    params.speculative.draft.mparams.path = value


def _draft_backend_sampling(wheel: Any, params: Any) -> None:
    params.speculative.draft.backend_sampling = True


def _rerank(wheel: Any, params: Any) -> None:
    params.embedding = True
    params.pooling_type = wheel.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def _named(table: dict[str, Any]) -> dict[str, Any]:
    """``{"-c, --ctx-size": x}`` -> one entry for each spelling."""
    return {name: entry for names, entry in table.items() for name in names.split(", ")}


_FLAGS = _named(
    {
        "-m, --model": _model,
        "--host": _host,
        "--port": _number("port"),
        "-c, --ctx-size": _number("n_ctx"),
        "-np, --parallel": _number("n_parallel"),
        "-b, --batch-size": _number("n_batch"),
        "-ub, --ubatch-size": _number("n_ubatch"),
        "-ngl, --gpu-layers, --n-gpu-layers": _layers,
        "-t, --threads": _threads,
        "-tb, --threads-batch": _batch_threads,
        "--threads-http": _number("n_threads_http"),
        "-lv, --verbosity, --log-verbosity": _number("verbosity"),
        "--chat-template": _text("chat_template"),
        "--mmproj": _projector,
        "--video-ffmpeg-dir": _video_programs,
        "--image-min-tokens": _number("image_min_tokens"),
        "--image-max-tokens": _number("image_max_tokens"),
        "--lora": _adapter,
        "--load-mode": _choice(
            "load_mode",
            "llama_load_mode",
            "LLAMA_LOAD_MODE_",
            {"auto": "AUTO", "none": "NONE", "mmap": "MMAP", "mlock": "MLOCK", "dio": "DIRECT_IO"},
        ),
        "-ctk, --cache-type-k": _cache_type("cache_type_k"),
        "-ctv, --cache-type-v": _cache_type("cache_type_v"),
        "-fa, --flash-attn": _choice(
            "flash_attn_type",
            "llama_flash_attn_type",
            "LLAMA_FLASH_ATTN_TYPE_",
            {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"},
        ),
        "--pooling": _choice(
            "pooling_type",
            "llama_pooling_type",
            "LLAMA_POOLING_TYPE_",
            {"none": "NONE", "mean": "MEAN", "cls": "CLS", "last": "LAST", "rank": "RANK"},
        ),
        "-sm, --split-mode": _choice(
            "split_mode",
            "llama_split_mode",
            "LLAMA_SPLIT_MODE_",
            {"none": "NONE", "layer": "LAYER", "row": "ROW", "tensor": "TENSOR"},
        ),
        "--reasoning-format": _choice(
            "reasoning_format",
            "common_reasoning_format",
            "COMMON_REASONING_FORMAT_",
            {
                "none": "NONE",
                "auto": "AUTO",
                "deepseek": "DEEPSEEK",
                "deepseek-legacy": "DEEPSEEK_LEGACY",
            },
        ),
        "-mg, --main-gpu": _number("main_gpu"),
        "-ts, --tensor-split": _tensor_split,
        "-dev, --device": _devices,
        "--keep": _number("n_keep"),
        "-cram, --cache-ram": _number("cache_ram_mib"),
        "--cache-reuse": _number("n_cache_reuse"),
        "--ctx-checkpoints": _number("n_ctx_checkpoints"),
        "--kv-unified-per-slot": _number("kv_unified_per_slot"),
        "--slot-save-path": _text("slot_save_path"),
        "-sps, --slot-prompt-similarity": _real("slot_prompt_similarity"),
        "-fit, --fit": _fit,
        "-fitt, --fit-target": _fit_target,
        "-fitc, --fit-ctx": _number("fit_params_min_ctx"),
        "--spec-type": _draft_types,
        "--spec-draft-n-max": _draft_max,
        "--spec-draft-model": _draft_model,
        "-to, --timeout": _number("timeout_read"),
        "--sse-ping-interval": _number("sse_ping_interval"),
    }
)

_SWITCHES = _named(
    {
        "--no-webui, --no-ui": _switch("ui", False),
        "--offline": _switch("offline", True),
        # The wheel's log always has its prefix, and the log reader expects either form.
        "--no-log-prefix, --no-log-timestamps, --log-prefix, --log-timestamps": _nothing,
        "--jinja": _switch("use_jinja", True),
        "--no-jinja": _switch("use_jinja", False),
        "--mmproj-offload": _switch("mmproj_use_gpu", True),
        "--no-mmproj-offload": _switch("mmproj_use_gpu", False),
        "--spec-draft-backend-sampling": _draft_backend_sampling,
        "--embedding, --embeddings": _switch("embedding", True),
        "--rerank, --reranking": _rerank,
        "--context-shift": _switch("ctx_shift", True),
        "--no-context-shift": _switch("ctx_shift", False),
        "-kvu, --kv-unified": _switch("kv_unified", True),
        "--no-kv-unified": _switch("kv_unified", False),
        "--slots": _switch("endpoint_slots", True),
        "--no-slots": _switch("endpoint_slots", False),
        "--metrics": _switch("endpoint_metrics", True),
        "--props": _switch("endpoint_props", True),
        "--warmup": _switch("warmup", True),
        "--no-warmup": _switch("warmup", False),
        "--swa-full": _switch("swa_full", True),
        "--no-kv-offload": _switch("no_kv_offload", True),
        "--cache-prompt": _switch("cache_prompt", True),
        "--no-cache-prompt": _switch("cache_prompt", False),
    }
)


def print_version() -> None:
    """What llama-server prints, on standard error. The wheel's own build number is 0."""
    import importlib.metadata  # noqa: PLC0415

    version = importlib.metadata.version("xllamacpp")
    sys.stderr.write(f"version: {version.rpartition('.')[2]} (xllamacpp {version})\n")


def print_devices(wheel: Any) -> None:
    """llama-server's list: one line a device that is not the CPU, ``(none)`` without any."""
    print("Available devices:")
    found = False
    for device in wheel.get_device_info():
        if device["type"].name.endswith("_CPU"):
            continue
        found = True
        total, free = device["memory_total"] >> 20, device["memory_free"] >> 20
        print(f"  {device['name']}: {device['description']} ({total} MiB, {free} MiB free)")
    if not found:
        print("  (none)")


if __name__ == "__main__":
    main(sys.argv[1:])
