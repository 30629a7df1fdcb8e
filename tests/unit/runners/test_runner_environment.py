"""runners-and-scheduling 2.6: what a runner inherits."""

import pytest

from ollamad.runners.environment import (
    child_environment,
    is_stripped,
    loggable,
    pick_backend,
    waiting_environment,
)


@pytest.mark.parametrize(
    "name",
    [
        "LLAMA_API_KEY",
        "llama_api_key",
        "LLAMA_ARG_API_KEY_FILE",
        "LLAMA_ARG_HOST",
        "LLAMA_ARG_PORT",
        "LLAMA_ARG_SSL_KEY_FILE",
        "LLAMA_ARG_API_PREFIX",
        "LLAMA_ARG_MODELS_DIR",
        "LLAMA_ARG_LOG_FILE",
        "LLAMA_SERVER_ROUTER_PORT",
        "OLLAMA_API_KEY",
        "OPENAI_API_KEY",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "DB_PASSWORD",
        "PGPASSWORD",
        "MYSQL_PWD",
        "GITHUB_PAT",
        "SENTRY_DSN",
        "NPM_AUTHTOKEN",
        "SSH_KEY_PASSPHRASE",
        "NOTIFY_SOCKET",
    ],
)
def test_secrets_and_server_settings_are_stripped(name: str) -> None:
    assert is_stripped(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LLAMA_ARG_FIT",
        "LLAMA_ARG_FIT_TARGET",
        "LLAMA_ARG_IMAGE_MIN_TOKENS",
        "CUDA_VISIBLE_DEVICES",
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
        "MONKEY",
        "PWD",
        "PATH_TO_MODELS",
        "LD_LIBRARY_PATH",
    ],
)
def test_what_runners_need_is_kept(name: str) -> None:
    assert not is_stripped(name)


def test_a_password_in_a_url_is_stripped() -> None:
    out = child_environment(
        {
            "DATABASE_URL": "postgres://me:hunter2@db/x",
            "HTTPS_PROXY": "http://me:hunter2@proxy:3128",
            "HTTP_PROXY": "http://proxy:3128",
            "NO_PROXY": "a@b,c:d",
        },
        overrides={},
    )
    assert out == {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "a@b,c:d"}


def test_library_path_begins_with_the_programs_directory() -> None:
    out = child_environment(
        {"LD_LIBRARY_PATH": "/usr/lib:/opt/bin", "A": "b"},
        overrides={},
        library_dirs=["/opt/bin", "/opt/bin/cuda_v13"],
        platform="linux",
    )
    assert out == {"LD_LIBRARY_PATH": "/opt/bin:/opt/bin/cuda_v13:/usr/lib", "A": "b"}


def test_the_launch_wins_whatever_the_case() -> None:
    out = child_environment(
        {"Cuda_Visible_Devices": "7", "LLAMA_MEDIA_MARKER": "old"},
        overrides={"CUDA_VISIBLE_DEVICES": "0"},
        api_key="k",
        media_marker="<m>",
    )
    assert out == {"CUDA_VISIBLE_DEVICES": "0", "LLAMA_MEDIA_MARKER": "<m>", "LLAMA_API_KEY": "k"}


def test_without_devices_only_marker_and_library_path_are_added() -> None:
    out = child_environment(
        {}, overrides={}, library_dirs=["/opt"], media_marker="<m>", platform="linux"
    )
    assert out == {"LD_LIBRARY_PATH": "/opt", "LLAMA_MEDIA_MARKER": "<m>"}


def test_a_runner_beside_others_gives_way_unless_the_user_decides_how_threads_wait() -> None:
    assert waiting_environment(False, {}) == {}
    assert waiting_environment(True, {}) == {"GOMP_SPINCOUNT": "300"}
    assert waiting_environment(True, {"GOMP_SPINCOUNT": "7"}) == {}
    assert waiting_environment(True, {"OMP_WAIT_POLICY": "active"}) == {}


def test_a_picture_is_not_handed_to_other_programs_unless_the_user_says_so() -> None:
    out = child_environment({}, overrides={}, reads_media=True)
    assert out == {"LLAMA_ARG_VIDEO_FFMPEG_DIR": "/dev/null"}
    mine = {"LLAMA_ARG_VIDEO_FFMPEG_DIR": "/usr/bin"}
    assert child_environment(mine, overrides={}, reads_media=True) == mine


def test_macos_has_another_library_path() -> None:
    out = child_environment({}, overrides={}, library_dirs=["/opt"], platform="darwin")
    assert out == {"DYLD_LIBRARY_PATH": "/opt"}


def test_the_backend_is_never_base_or_cpu() -> None:
    files = ["libggml-base.so", "libggml-cpu.so", "libggml-futuregpu.so", "libggml.so", "readme"]
    assert pick_backend(files) == "libggml-futuregpu.so"
    assert pick_backend(["libggml-base.so.1"]) == ""
    assert pick_backend(["libggml-cuda.so.1"]) == "libggml-cuda.so.1"


def test_the_log_shows_no_secret() -> None:
    shown = loggable(
        {
            "CUDA_API_KEY": "secret",
            "CUDA_VISIBLE_DEVICES": "0",
            "OLLAMA_DEBUG": "1",
            "OPENAI_API_KEY": "secret",
            "HF_TOKEN": "secret",
            "PATH": "/bin",
        }
    )
    assert shown == {"CUDA_API_KEY": "[redacted]", "CUDA_VISIBLE_DEVICES": "0", "PATH": "/bin"}
