"""Every setting, declared and documented in one place: the environment and ``server.json``.

``runners-and-scheduling.md`` 5.3 and 5.6. The fields of `Settings` drive the parsing, the help of
``serve``, the ``server config`` line of the log and the check of the docs. A bad value means the
default; only ollamad's own variables, and the origins (which the API checks), refuse to start.
"""
# ruff: noqa: RUF009 - a field's declaration carries its environment variable

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ollamad.cloud_base import DEFAULT_URL, CloudBase
from ollamad.environment import FOREVER, Kind, Variable, Warned, read, shown
from ollamad.errors import UsageError
from ollamad.host import Host, unquoted

__all__ = ["FOREVER", "SERVE_HELP", "VARIABLES", "Settings", "Warned", "go_map"]


def _variable(
    name: str,
    kind: Kind,
    default: str,
    help: str,
    *,
    listed: bool = True,
    forever_up_to: int | None = None,
) -> Any:
    """A field of `Settings` that an environment variable fills."""
    variable = Variable(name, kind, default, help, listed=listed, forever_up_to=forever_up_to)
    return field(metadata={"variable": variable})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process. Durations are nanoseconds, `FOREVER` for without end."""

    # What ``serve --help`` shows, in its order.
    log_level: int = _variable(
        "OLLAMA_DEBUG",
        "level",
        "",
        "Show more in the log: 1 for debug, 2 for trace, -1 for warnings only, -2 for errors only",
    )
    host: Host = _variable(
        "OLLAMA_HOST",
        "address",
        "127.0.0.1:11434",
        "Address the server listens on and clients connect to",
    )
    context_length: int = _variable(
        "OLLAMA_CONTEXT_LENGTH",
        "number",
        "0",
        "Context length unless a model or a request says otherwise (0: by the GPUs' memory)",
    )
    keep_alive: int = _variable(
        "OLLAMA_KEEP_ALIVE",
        "duration",
        "5m",
        "How long a model stays loaded after its last request (negative: forever)",
        forever_up_to=-1,
    )
    max_loaded_models: int = _variable(
        "OLLAMA_MAX_LOADED_MODELS",
        "number",
        "0",
        "Most models loaded at once (0: three for each GPU, three without one)",
    )
    max_transfer_streams: int = _variable(
        "OLLAMA_MAX_TRANSFER_STREAMS",
        "number",
        "4",
        "Most parallel streams of a transfer of a model made of tensor layers",
    )
    max_queue: int = _variable(
        "OLLAMA_MAX_QUEUE", "number", "512", "Most requests that wait; the next one is answered 503"
    )
    models: Path = _variable("OLLAMA_MODELS", "path", "~/.ollama/models", "Directory of the models")
    num_parallel: int = _variable(
        "OLLAMA_NUM_PARALLEL", "number", "1", "Requests that one model serves at once"
    )
    no_cloud: bool = _variable(
        "OLLAMA_NO_CLOUD", "switch", "0", "Switch off everything that would use ollama.com's cloud"
    )
    no_prune: bool = _variable("OLLAMA_NOPRUNE", "switch", "0", "Keep unreferenced blobs at start")
    origins: tuple[str, ...] = _variable(
        "OLLAMA_ORIGINS",
        "origins",
        "",
        "Further origins that browsers may call from, separated by commas",
    )
    sched_spread: bool = _variable(
        "OLLAMA_SCHED_SPREAD", "switch", "0", "Spread every model over all GPUs"
    )
    flash_attention: bool | None = _variable(
        "OLLAMA_FLASH_ATTENTION",
        "optional switch",
        "",
        "Force flash attention on or off (unset: where it is supported)",
    )
    kv_cache_type: str = _variable(
        "OLLAMA_KV_CACHE_TYPE",
        "text",
        "",
        "Type of the key/value cache's elements: f16 (unset), q8_0, q4_0",
    )
    llm_library: str = _variable(
        "OLLAMA_LLM_LIBRARY", "text", "", "Use this backend library instead of the best one found"
    )
    gpu_overhead: int = _variable(
        "OLLAMA_GPU_OVERHEAD", "number", "0", "Bytes to leave free on each GPU"
    )
    igpu_enable: bool | None = _variable(
        "OLLAMA_IGPU_ENABLE",
        "optional switch",
        "",
        "Force the use of integrated GPUs on or off (unset: where it helps)",
    )
    llama_arg_fit: str = _variable(
        "LLAMA_ARG_FIT",
        "text",
        "",
        "llama-server: whether it fits parameters to the devices' memory, on or off",
    )
    llama_arg_fit_target: str = _variable(
        "LLAMA_ARG_FIT_TARGET",
        "text",
        "",
        "llama-server: MiB to leave free on each device when it fits",
    )
    load_timeout: int = _variable(
        "OLLAMA_LOAD_TIMEOUT",
        "duration",
        "5m",
        "How long a load may make no progress before it is given up (0: forever)",
        forever_up_to=0,
    )
    llama_server: Path | None = _variable(
        "OLLAMAD_LLAMA_SERVER",
        "path",
        "",
        "Program that speaks llama-server's protocol and flags, used instead of those found",
    )
    require_gpu: bool = _variable(
        "OLLAMAD_REQUIRE_GPU",
        "switch",
        "0",
        "Refuse to load a model that would run on the CPU alone, and tell why no GPU is used",
    )
    shutdown_grace: int = _variable(
        "OLLAMAD_SHUTDOWN_GRACE",
        "duration",
        "5s",
        "How long running requests may go on after SIGTERM or SIGINT (negative: until they end)",
        forever_up_to=-1,
    )
    log_format: Literal["text", "json"] = _variable(
        "OLLAMAD_LOG_FORMAT", "log format", "text", "Format of the log on stderr: text or json"
    )

    log_requests: bool = _variable(
        "OLLAMA_DEBUG_LOG_REQUESTS",
        "switch",
        "0",
        "Store the bodies of inference requests, with scripts that replay them",
        listed=False,
    )
    vulkan: bool = _variable("OLLAMA_VULKAN", "switch", "1", "Use Vulkan devices", listed=False)
    go_template: bool | None = _variable(
        "OLLAMA_GO_TEMPLATE",
        "optional switch",
        "",
        "Whether a Modelfile's TEMPLATE is used (unset: unless the GGUF's own knows more)",
        listed=False,
    )
    remotes: tuple[str, ...] = _variable(
        "OLLAMA_REMOTES",
        "list",
        "ollama.com",
        "Hosts that remote models may live on, separated by commas",
        listed=False,
    )
    cloud_base: CloudBase = _variable(
        "OLLAMA_CLOUD_BASE_URL",
        "cloud address",
        DEFAULT_URL,
        "Server that stands in for ollama.com's cloud; only one on this machine",
        listed=False,
    )
    auth: bool = _variable(
        "OLLAMA_AUTH", "switch", "0", "Sign the command line's requests to the server", listed=False
    )
    editor: str = _variable(
        "OLLAMA_EDITOR", "text", "", "Editor for prompts in the interactive session", listed=False
    )
    no_history: bool = _variable(
        "OLLAMA_NOHISTORY",
        "switch",
        "0",
        "Keep no history of the interactive session",
        listed=False,
    )
    cuda_visible_devices: str = _variable(
        "CUDA_VISIBLE_DEVICES", "text", "", "NVIDIA devices that may be used", listed=False
    )
    hip_visible_devices: str = _variable(
        "HIP_VISIBLE_DEVICES", "text", "", "AMD devices that may be used, by number", listed=False
    )
    rocr_visible_devices: str = _variable(
        "ROCR_VISIBLE_DEVICES",
        "text",
        "",
        "AMD devices that may be used, by number or UUID",
        listed=False,
    )
    ggml_vk_visible_devices: str = _variable(
        "GGML_VK_VISIBLE_DEVICES",
        "text",
        "",
        "Vulkan devices that may be used, by number",
        listed=False,
    )
    gpu_device_ordinal: str = _variable(
        "GPU_DEVICE_ORDINAL", "text", "", "AMD devices that may be used, by number", listed=False
    )
    hsa_override_gfx_version: str = _variable(
        "HSA_OVERRIDE_GFX_VERSION",
        "text",
        "",
        "Treat AMD devices as this gfx version (a KFD node's number appended, as _1: only it)",
        listed=False,
    )
    jetson_jetpack: str = _variable(
        "JETSON_JETPACK", "text", "", "Version of JetPack on a Jetson board", listed=False
    )

    #: The user's home directory, which holds ``.ollama``.
    home: Path
    #: ``disable_ollama_cloud`` of ``server.json``.
    cloud_disabled_by_config: bool = False
    #: What was wrong with the environment.
    warnings: tuple[Warned, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], server_json: bytes | None = None) -> Settings:
        """Parse ``environ`` and the content of ``server.json``; touches nothing else.

        Raises `UsageError` for a bad value of one of ollamad's own variables, and when there is no
        home directory.
        """
        warnings: list[Warned] = []
        values: dict[str, Any] = {}
        for variable in VARIABLES:
            if variable.field:
                value = read(variable, unquoted(environ.get(variable.name, "")), warnings)
                values[variable.field] = value
        home = _home(environ)
        if not unquoted(environ.get("OLLAMA_MODELS", "")):
            values["models"] = home / ".ollama" / "models"
        return cls(
            **values,
            home=home,
            cloud_disabled_by_config=_cloud_disabled(server_json),
            warnings=tuple(warnings),
        )

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """`from_environ` with the user's ``~/.ollama/server.json``, when it can be read."""
        try:
            server_json = (_home(environ) / ".ollama" / "server.json").read_bytes()
        except OSError:
            server_json = None
        return cls.from_environ(environ, server_json)

    @property
    def key_path(self) -> Path:
        """The daemon's private key; the public one is beside it with ``.pub`` appended."""
        return self.home / ".ollama" / "id_ed25519"

    @property
    def cache(self) -> Path:
        """Directory of what can be fetched again."""
        return self.home / ".ollama" / "cache"

    @property
    def cloud_disabled(self) -> bool:
        return self.no_cloud or self.cloud_disabled_by_config

    @property
    def cloud_source(self) -> Literal["none", "env", "config", "both"]:
        """What disabled the cloud, as ``GET /api/status`` reports it."""
        if self.no_cloud:
            return "both" if self.cloud_disabled_by_config else "env"
        return "config" if self.cloud_disabled_by_config else "none"

    def effective(self) -> dict[str, str]:
        """Effective values by variable name, for the log. Nothing in it is secret."""
        return {
            variable.name: shown(variable, getattr(self, variable.field))
            for variable in sorted(VARIABLES, key=lambda v: v.name)
            if variable.field
        }


#: Every variable, those of `Settings` first in the order of its fields.
VARIABLES: tuple[Variable, ...] = (
    *(
        replace(f.metadata["variable"], field=f.name)
        for f in fields(Settings)
        if "variable" in f.metadata
    ),
    Variable("OLLAMA_API_KEY", "text", "", "Key for hosted models; runners never see it"),
    Variable("HTTP_PROXY", "text", "", "Proxy for outgoing http requests"),
    Variable("HTTPS_PROXY", "text", "", "Proxy for outgoing https requests"),
    Variable("NO_PROXY", "text", "", "Hosts that are reached without a proxy"),
    Variable("CUDA_ERROR_LEVEL", "text", "", "NVIDIA driver: 50 for diagnostics"),
    Variable("AMD_LOG_LEVEL", "text", "", "AMD driver: 3 for diagnostics"),
)

#: Names and descriptions for ``serve --help``, in its order.
SERVE_HELP: tuple[tuple[str, str], ...] = tuple((v.name, v.help) for v in VARIABLES if v.listed)


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME") or environ.get("USERPROFILE")
    if home:
        return Path(home)
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError("$HOME is not defined") from None


def _cloud_disabled(server_json: bytes | None) -> bool:
    if server_json is None:
        return False
    try:
        config = json.loads(server_json)
    except (ValueError, RecursionError):
        # A file that is not JSON counts as missing (5.6).
        return False
    return isinstance(config, dict) and config.get("disable_ollama_cloud") is True


def go_map(values: Mapping[str, str]) -> str:
    """``map[a:1 b:2]``, the form that readers of logs know from ``server config``."""
    return f"map[{' '.join(f'{key}:{value}' for key, value in values.items())}]"
