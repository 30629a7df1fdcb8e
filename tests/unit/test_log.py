"""The log's lines, runners-and-scheduling.md 5.4."""

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ollamad import log
from ollamad.log import RUNNER_OUTPUT, JsonFormatter, TextFormatter, fields, python_level


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("ollamad")
    names = ("raiseExceptions", "logThreads", "logProcesses", "logMultiprocessing")
    switches = {name: getattr(logging, name) for name in names}
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    for name, value in switches.items():
        setattr(logging, name, value)


def written(
    message: str, *args: object, level: int = logging.INFO, format: Any = "text", **kwargs: Any
) -> str:
    stream = io.StringIO()
    log.configure(-8, format, stream)
    logging.getLogger("ollamad.test").log(level, message, *args, **kwargs)
    return stream.getvalue()


def after_source(line: str) -> str:
    """The part of a line after time, level and source; they are checked on the way."""
    match = re.fullmatch(
        r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|[+-]\d\d:\d\d) level=[A-Z]+"
        r" source=test_log\.py:\d+ (.*)\n",
        line,
    )
    assert match, line
    return match[1]


def test_a_line() -> None:
    line = written("starting %s", "now", extra={"port": 8080, "path": "/a b"})
    assert after_source(line) == 'msg="starting now" port=8080 path="/a b"'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("one\ntwo", r'"one\ntwo"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("\x9b31m", r'"\u009b31m"'),
        ("größe", "größe"),
        ("a größe", '"a größe"'),
        ("\udcff", r'"\udcff"'),
        (True, "true"),
        (None, '""'),
        (1.5, "1.5"),
    ],
)
def test_values(value: object, text: str) -> None:
    assert after_source(written("m", extra=fields(name=value))) == f"msg=m name={text}"


def test_one_record_is_one_line_even_with_a_traceback() -> None:
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        line = written("failed", exc_info=True)
    assert line.count("\n") == 1
    assert r"ValueError: bad\nthing" in line


@pytest.mark.parametrize(
    ("level", "name"),
    [(5, "TRACE"), (10, "DEBUG"), (20, "INFO"), (30, "WARN"), (40, "ERROR"), (50, "ERROR+4")],
)
def test_level_names(level: int, name: str) -> None:
    assert f" level={name} " in written("m", level=level)


@pytest.mark.parametrize(
    ("setting", "level"),
    [(0, 20), (-4, 10), (-8, 5), (-12, 1), (-40, 1), (4, 30), (8, 40), (12, 50)],
)
def test_levels_of_the_settings(setting: int, level: int) -> None:
    assert python_level(setting) == level


@pytest.mark.parametrize(
    ("setting", "ours", "theirs"),
    [
        (0, ["INFO", "WARN", "ERROR"], ["WARN", "ERROR"]),
        (-4, ["DEBUG", "INFO", "WARN", "ERROR"], ["WARN", "ERROR"]),
        (
            -8,
            ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"],
            ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"],
        ),
        (8, ["ERROR"], ["ERROR"]),
    ],
)
def test_libraries_are_quiet_unless_all_is_asked_for(
    setting: int, ours: list[str], theirs: list[str]
) -> None:
    for logger, expected in (("ollamad.x", ours), ("hypercorn.error", theirs)):
        stream = io.StringIO()
        log.configure(setting, "text", stream)
        for level in (5, 10, 20, 30, 40):
            logging.getLogger(logger).log(level, "m")
        assert re.findall(r"level=(\w+)", stream.getvalue()) == expected


@pytest.mark.parametrize("setting", [0, -4, -8, -100])
def test_what_speaks_to_registries_never_shows_what_they_say(setting: int) -> None:
    """httpcore writes the heads of answers into its debug records: cookies and signed URLs."""
    stream = io.StringIO()
    log.configure(setting, "text", stream)
    logging.getLogger("httpcore.http11").debug("receive_response_headers.complete secret")
    logging.getLogger("httpcore.connection").info("secret")
    assert stream.getvalue() == ""
    logging.getLogger("httpcore.http11").warning("odd")
    assert "odd" in stream.getvalue()


def test_lines_of_runners_are_passed_on_as_they_are() -> None:
    record = logging.makeLogRecord(
        {"name": RUNNER_OUTPUT, "levelno": 20, "msg": 'load: 100% "done"\n\x1b[0m= two'}
    )
    assert TextFormatter().format(record) == 'load: 100% "done"\n\x1b[0m= two'
    lines = [json.loads(line) for line in JsonFormatter().format(record).split("\n")]
    assert [line["msg"] for line in lines] == ['load: 100% "done"', "\x1b[0m= two"]
    assert {line["level"] for line in lines} == {"INFO"}


def test_json() -> None:
    line = written("a %d", 1, format="json", extra={"count": 2, "on": True, "path": io}, level=30)
    record = json.loads(line)
    assert line.count("\n") == 1
    assert list(record) == ["time", "level", "source", "msg", "count", "on", "path"]
    assert (record["level"], record["msg"]) == ("WARN", "a 1")
    assert (record["count"], record["on"], record["path"]) == (2, True, str(io))


def test_times_carry_the_local_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    for zone, expected in (
        ("UTC", "2026-05-01T15:36:45.053Z"),
        ("XYZ-5:30", "2026-05-01T21:06:45.053+05:30"),
        ("XYZ+3:30", "2026-05-01T12:06:45.053-03:30"),
    ):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        monkeypatch.setattr(log, "_second", (-1, "", ""))
        assert log.timestamp(1777649805.0535) == expected
        assert log.timestamp(1777649805.9) == expected.replace(".053", ".900")
    monkeypatch.undo()
    time.tzset()


def test_a_broken_stream_is_not_reported_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    log.configure(0, "text", stream)
    stream.close()
    logging.getLogger("ollamad").error("nobody hears")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("format", ["text", "json"])
def test_what_clients_send_does_not_fill_the_log(format: str) -> None:
    long = "x" * 1_000_000
    for line in (
        written("%s", long, format=format),
        written("m", extra={"option": long}, format=format),
        written("m", extra=fields(name=long), format=format),
    ):
        assert "(1000000 characters)" in line
        assert len(line) < 10_000
