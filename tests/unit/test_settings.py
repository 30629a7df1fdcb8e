"""The environment and server.json, runners-and-scheduling.md 5.3, 5.6 and 8.1."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ollamad.environment import BUILT_IN_ORIGINS, level_name
from ollamad.errors import UsageError
from ollamad.settings import FOREVER, SERVE_HELP, VARIABLES, Settings, go_map

SECOND = 1_000_000_000


def settings(server_json: bytes | None = None, **environ: str) -> Settings:
    return Settings.from_environ({"HOME": "/home/user", **environ}, server_json)


def one(name: str, value: str) -> Any:
    """What ``Settings`` has for the variable ``name`` set to ``value``."""
    (field,) = (v.field for v in VARIABLES if v.name == name)
    return getattr(settings(**{name: value}), field)


def test_defaults() -> None:
    s = settings()
    assert s.log_level == 0
    assert s.host.url == "http://127.0.0.1:11434"
    assert s.models == Path("/home/user/.ollama/models")
    assert s.keep_alive == 300 * SECOND
    assert s.load_timeout == 300 * SECOND
    assert s.shutdown_grace == 5 * SECOND
    assert (s.num_parallel, s.max_loaded_models, s.max_queue, s.context_length) == (1, 0, 512, 0)
    assert (s.flash_attention, s.igpu_enable, s.go_template) == (None, None, None)
    assert (s.sched_spread, s.no_prune, s.no_cloud, s.log_requests) == (False,) * 4
    assert s.vulkan is True
    assert (s.max_transfer_streams, s.gpu_overhead, s.kv_cache_type) == (4, 0, "")
    assert s.remotes == ("ollama.com",)
    assert s.origins == BUILT_IN_ORIGINS
    assert (s.log_format, s.llama_server) == ("text", None)
    assert s.key_path == Path("/home/user/.ollama/id_ed25519")
    assert s.warnings == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 'value' ", "value"),
        (' "value" ', "value"),
        (" ' value ' ", " value "),
        ("'\"v\"'", "v"),
        ("v'", "v"),
        ("''", ""),
        ("\" ' value ' \"", " ' value ' "),
    ],
)
def test_quotes_and_blanks(text: str, value: str) -> None:
    assert one("OLLAMA_KV_CACHE_TYPE", text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((t, False) for t in ("", "false", "0", '"0"', " 0 ", "F", "f", "False", "FALSE")),
        *((t, True) for t in ("true", "1", "random", "something", "no", "off", "2", "fALSE")),
        *((t, True) for t in ("' '", "t", "T", "TRUE", "True")),
    ],
)
def test_switches(text: str, value: bool) -> None:
    assert one("OLLAMA_NOPRUNE", text) is value
    # The same texts for a switch with three states, where empty is the third.
    assert one("OLLAMA_FLASH_ATTENTION", text) is (None if text == "" else value)


def test_a_switch_that_is_on_by_default_is_switched_off() -> None:
    assert one("OLLAMA_VULKAN", "") is True
    assert one("OLLAMA_VULKAN", "0") is False


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", 1),
        ("1337", 1337),
        (" 7 ", 7),
        ("'7'", 7),
        ("007", 7),
        ("18446744073709551615", 2**64 - 1),
        ("", 512),
    ],
)
def test_numbers(text: str, value: int) -> None:
    assert one("OLLAMA_MAX_QUEUE", text) == value
    assert settings(OLLAMA_MAX_QUEUE=text).warnings == ()


@pytest.mark.parametrize(
    "text", ["-1", "+1", "1_0", "1.0", "0o10", "0x10", "string", "18446744073709551616", "٣", "²"]
)
def test_bad_numbers_mean_the_default_and_warn(text: str) -> None:
    s = settings(OLLAMA_MAX_QUEUE=text)
    assert s.max_queue == 512
    assert s.warnings == (
        ("invalid environment variable, using default", "OLLAMA_MAX_QUEUE", text, "512"),
    )


@pytest.mark.parametrize("text", ["", " ", "???", "1d", "1w", "1y", "1.5", "0x10", "1_000"])
def test_a_duration_that_is_none_means_the_default(text: str) -> None:
    assert one("OLLAMA_KEEP_ALIVE", text) == 300 * SECOND
    assert one("OLLAMA_LOAD_TIMEOUT", text) == 300 * SECOND


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("1h2m3s", 3723), ("60", 60), ("3600", 3600), ("+5", 5), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: int) -> None:
    assert one("OLLAMA_KEEP_ALIVE", text) == seconds * SECOND
    assert one("OLLAMA_LOAD_TIMEOUT", text) == seconds * SECOND


@pytest.mark.parametrize("text", ["0", "-0", "0s", "-0s"])
def test_zero_unloads_at_once_but_never_times_out(text: str) -> None:
    assert one("OLLAMA_KEEP_ALIVE", text) == 0
    assert one("OLLAMA_LOAD_TIMEOUT", text) == FOREVER
    assert one("OLLAMAD_SHUTDOWN_GRACE", text) == 0


@pytest.mark.parametrize("text", ["-1", "-1m", "99999999999999"])
def test_negative_and_huge_durations_are_forever(text: str) -> None:
    assert one("OLLAMA_KEEP_ALIVE", text) == FOREVER
    assert one("OLLAMA_LOAD_TIMEOUT", text) == FOREVER
    assert one("OLLAMAD_SHUTDOWN_GRACE", text) == FOREVER


@pytest.mark.parametrize(
    ("text", "level", "name"),
    [
        *((t, 0, "INFO") for t in ("", "false", "f", "0", "random", "1.5")),
        *((t, -4, "DEBUG") for t in ("true", "t", "1")),
        ("2", -8, "DEBUG-4"),
        ("3", -12, "DEBUG-8"),
        ("10", -40, "DEBUG-36"),
        ("-1", 4, "WARN"),
        ("-2", 8, "ERROR"),
        ("-3", 12, "ERROR+4"),
    ],
)
def test_levels(text: str, level: int, name: str) -> None:
    assert one("OLLAMA_DEBUG", text) == level
    assert level_name(level) == name


def test_origins_come_before_the_built_in_ones() -> None:
    origins = one("OLLAMA_ORIGINS", "http://10.0.0.1")
    assert origins == (
        "http://10.0.0.1",
        "http://localhost",
        "https://localhost",
        "http://localhost:*",
        "https://localhost:*",
        "http://127.0.0.1",
        "https://127.0.0.1",
        "http://127.0.0.1:*",
        "https://127.0.0.1:*",
        "http://0.0.0.0",
        "https://0.0.0.0",
        "http://0.0.0.0:*",
        "https://0.0.0.0:*",
        "app://*",
        "file://*",
        "tauri://*",
        "vscode-webview://*",
        "vscode-file://*",
    )
    assert one("OLLAMA_ORIGINS", "a, b,,c")[:4] == ("a", " b", "", "c")


def test_remotes_are_not_trimmed_inside() -> None:
    assert one("OLLAMA_REMOTES", " x , y") == ("x ", " y")


def test_models_directory_is_taken_as_written() -> None:
    assert one("OLLAMA_MODELS", "~/models") == Path("~/models")
    assert one("OLLAMA_MODELS", " '/a b' ") == Path("/a b")


def test_a_bad_port_warns() -> None:
    s = settings(OLLAMA_HOST=":66000")
    assert s.host.url == "http://:11434"
    assert [(w.message, w.key, w.value) for w in s.warnings] == [
        ("invalid port, using default", "OLLAMA_HOST", "66000")
    ]


@pytest.mark.parametrize(
    ("no_cloud", "server_json", "source"),
    [
        ("", None, "none"),
        ("1", None, "env"),
        ("", b'{"disable_ollama_cloud": true, "other": 1}', "config"),
        ("1", b'{"disable_ollama_cloud": true}', "both"),
        ("", b"{invalid", "none"),
        ("", b"[]", "none"),
        ("", b"\xff", "none"),
        ("", b"[" * 200_000, "none"),
        ("", b'{"disable_ollama_cloud": "yes"}', "none"),
    ],
)
def test_what_disables_the_cloud(no_cloud: str, server_json: bytes | None, source: str) -> None:
    s = settings(server_json, OLLAMA_NO_CLOUD=no_cloud)
    assert s.cloud_source == source
    assert s.cloud_disabled is (source != "none")


def test_load_reads_server_json(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert Settings.load(environ).cloud_source == "none"
    (tmp_path / ".ollama").mkdir()
    (tmp_path / ".ollama" / "server.json").write_text('{"disable_ollama_cloud": true}')
    assert Settings.load(environ).cloud_source == "config"


def test_an_unknown_log_format_is_refused() -> None:
    assert one("OLLAMAD_LOG_FORMAT", "json") == "json"
    with pytest.raises(UsageError, match='OLLAMAD_LOG_FORMAT must be "text" or "json"'):
        one("OLLAMAD_LOG_FORMAT", "xml")


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().max_queue = 1  # type: ignore[misc]


def test_help_of_serve_is_in_the_usual_order() -> None:
    listed = [name for name, _ in SERVE_HELP]
    prefixed = [
        "DEBUG",
        "HOST",
        "CONTEXT_LENGTH",
        "KEEP_ALIVE",
        "MAX_LOADED_MODELS",
        "MAX_TRANSFER_STREAMS",
        "MAX_QUEUE",
        "MODELS",
        "NUM_PARALLEL",
        "NO_CLOUD",
        "NOPRUNE",
        "ORIGINS",
        "SCHED_SPREAD",
        "FLASH_ATTENTION",
        "KV_CACHE_TYPE",
        "LLM_LIBRARY",
        "GPU_OVERHEAD",
        "IGPU_ENABLE",
    ]
    assert listed[:21] == [
        *("OLLAMA_" + name for name in prefixed),
        "LLAMA_ARG_FIT",
        "LLAMA_ARG_FIT_TARGET",
        "OLLAMA_LOAD_TIMEOUT",
    ]
    assert all(name.startswith("OLLAMAD_") for name in listed[21:])


def test_every_variable_has_a_default_that_its_kind_can_read() -> None:
    for variable in VARIABLES:
        assert variable.help
        assert variable.help[-1] not in ".!"
        if variable.field and variable.field != "models":  # whose default depends on HOME
            assert one(variable.name, "") == one(variable.name, variable.default), variable.name


def test_effective_values_for_the_log() -> None:
    shown = settings(
        OLLAMA_DEBUG="2",
        OLLAMA_KEEP_ALIVE="90",
        OLLAMA_FLASH_ATTENTION="1",
        OLLAMA_API_KEY="s3cret",
    ).effective()
    assert shown["OLLAMA_DEBUG"] == "DEBUG-4"
    assert shown["OLLAMA_KEEP_ALIVE"] == "1m30s"
    assert shown["OLLAMA_HOST"] == "http://127.0.0.1:11434"
    assert shown["OLLAMA_FLASH_ATTENTION"] == "true"
    assert shown["OLLAMA_IGPU_ENABLE"] == ""
    assert shown["OLLAMA_NOPRUNE"] == "false"
    assert shown["OLLAMA_MODELS"] == "/home/user/.ollama/models"
    assert shown["OLLAMA_REMOTES"] == "[ollama.com]"
    assert "s3cret" not in str(shown)
    assert list(shown) == sorted(shown)
    assert go_map({"a": "1", "b": "[x y]"}) == "map[a:1 b:[x y]]"
