"""Records of requests, runners-and-scheduling.md 5.4 and 5.7."""

import logging
import shutil
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints

from ollamad import request_log
from ollamad.request_log import AccessLog, RequestLog, file_stem, replay_script


def scope(path: str = "/api/chat", method: str = "POST", response: Any = None) -> dict[str, Any]:
    link = SimpleNamespace() if response is None else SimpleNamespace(response=response)
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"key=secret",
        "client": ("127.0.0.1", 5555),
        "extensions": {"server": link},
    }


def receiving(*pieces: bytes) -> Any:
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.disconnect"})

    async def receive() -> Any:
        return messages.pop(0)

    return receive


async def read_all(_scope: Any, receive: Any, _send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def nothing(*_: Any) -> None:
    pass


async def stuck(_scope: Any, receive: Any, _send: Any) -> None:
    await receive()
    await trio.sleep_forever()


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def last_record(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    return caplog.records[-1].__dict__


async def test_a_line_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ollamad"):
        await AccessLog(nothing, "server")(scope(response={"status": 404}), None, None)
    record = last_record(caplog)
    assert (record["msg"], record["status"], record["method"]) == ("request", 404, "POST")
    assert (record["client"], record["path"]) == ("127.0.0.1", "/api/chat")
    assert record["duration"][-1] == "s"
    assert "secret" not in str(record)


@pytest.mark.parametrize(
    ("method", "status", "level"),
    [
        ("GET", 200, "DEBUG"),
        ("HEAD", 200, "DEBUG"),
        ("GET", 404, "INFO"),
        ("POST", 200, "INFO"),
        ("DELETE", 200, "INFO"),
    ],
)
async def test_polling_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, method: str, status: int, level: str
) -> None:
    with caplog.at_level(logging.DEBUG, "ollamad"):
        request = scope(method=method, response={"status": status})
        await AccessLog(nothing, "server")(request, None, None)
    assert last_record(caplog)["levelname"] == level


async def test_a_client_that_left_before_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ollamad"), trio.move_on_after(0):
        await AccessLog(stuck, "server")(scope(), receiving(b""), None)
    assert last_record(caplog)["status"] == 499


async def test_no_line_when_the_log_is_to_be_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ollamad"):
        await AccessLog(nothing, "server")(scope(), None, None)
    assert caplog.records == []


async def test_bodies_are_stored_with_a_script(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(read_all, tmp_path, "http://127.0.0.1:11434")
    with caplog.at_level(logging.INFO, "ollamad"):
        await log(scope(), receiving(b'{"model":', b' "m"}'), None)
        await log(scope("/v1/chat/completions"), receiving(b"{}"), None)
    files = files_in(tmp_path)
    assert [path.name.split("-")[1] for path in files] == [
        "000001_api_chat_body.json",
        "000001_api_chat_request.sh",
        "000002_v1_chat_completions_body.json",
        "000002_v1_chat_completions_request.sh",
    ]
    assert files[0].read_bytes() == b'{"model": "m"}'
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert (
        f"logged to {files[0]}, replay using curl with `sh {files[1]}`"
        in caplog.records[-2].getMessage()
    )


@pytest.mark.parametrize(
    ("path", "method"), [("/api/tags", "GET"), ("/api/create", "POST"), ("/api/chat", "GET")]
)
async def test_other_requests_are_not(tmp_path: Path, path: str, method: str) -> None:
    log = RequestLog(read_all, tmp_path, "http://h")
    await log(scope(path, method), receiving(b"x"), None)
    assert files_in(tmp_path) == []


async def test_a_cancelled_request_is_stored_all_the_same(tmp_path: Path) -> None:
    with trio.move_on_after(0) as cancelled:
        with assert_checkpoints():
            await RequestLog(stuck, tmp_path, "http://h")(scope(), receiving(b"x"), None)
    assert cancelled.cancelled_caught
    assert len(files_in(tmp_path)) == 2


async def test_a_directory_that_is_gone_does_not_break_requests(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(read_all, tmp_path / "gone", "http://h")
    await log(scope(), receiving(b"x"), None)
    assert "storing a request failed" in caplog.text


def test_file_names_sort_by_time() -> None:
    stem = file_stem(1777649805_053000000, 12, "/v1/chat/completions")
    assert stem == "20260501T153645.053000000Z-000012_v1_chat_completions"


def test_the_directory_is_private_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(request_log.tempfile, "tempdir", str(tmp_path))
    with caplog.at_level(logging.INFO, "ollamad"):
        request_log.start_request_log(nothing, "http://h")
    (directory,) = tmp_path.iterdir()
    assert directory.name.startswith("ollama-request-logs-")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert f"will be stored in {directory} and include" in caplog.text


def test_a_script_says_where_and_what() -> None:
    script = replay_script("http://[::1]:11434/api/chat", Path("/tmp/it's/body.json"))
    sh = shutil.which("sh")
    assert sh
    # Instead of curl, print what it would be told.
    told = subprocess.run(
        [sh, "-c", script.replace("exec curl", "printf '%s\\n'"), sh, "http://other:1"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert told[-2:] == ["@/tmp/it's/body.json", "http://other:1/api/chat"]
    assert "url=${1:-http://[::1]:11434}" in script


async def test_a_path_of_a_megabyte_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ollamad"):
        long = scope(path="/" + "x" * 1_000_000, response={"status": 404})
        await AccessLog(nothing, "server")(long, None, None)
    assert len(last_record(caplog)["path"]) < 300
