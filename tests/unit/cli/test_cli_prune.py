"""``prune`` and ``disk``, as users see them."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from scripted_server import Answer, Cli, Request, Script, error, ok

from ollamad.cli import prune as module
from ollamad.cli.disk import report as disk_report
from ollamad.cli.prune import report, short_name, size_text
from ollamad.units import HOUR
from ollamad.wire import (
    DiskAmount,
    DiskModel,
    DiskResponse,
    KeptEntry,
    PrunedEntry,
    PruneResponse,
)

HEX = "0123456789abcdef" * 4
BLOB = {
    "name": f"blobs/sha256-{HEX}",
    "kind": "blob",
    "size": 1_500_000_000,
    "length": 1_500_000_000,
    "modified_at": "2020-01-01T00:00:00Z",
}
FOUND = {"entries": [BLOB], "freed": 1_500_000_000, "kept": []}
NONE: dict[str, Any] = {"entries": [], "freed": 0, "kept": []}


def sent(server: Script) -> list[Any]:
    return [request.json for request in server.sent("POST /api/prune")]


def test_it_removes_at_once_where_nobody_can_be_asked(cli: Cli, server: Script) -> None:
    server.on("POST /api/prune", ok(FOUND))
    result = cli("prune")
    assert (result.status, result.err) == (0, "")
    header, row, last = result.out.splitlines()
    assert header.split() == ["NAME", "KIND", "SIZE", "MODIFIED"]
    assert row.startswith("blobs/sha256-0123456789ab    blob    1.5 GB    ")
    assert row.rstrip().endswith("years ago")
    assert last == "Freed 1.5 GB"
    assert sent(server) == [{}]


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["--dry-run"], {"dry_run": True}),
        (["-n", "--age", "24h"], {"dry_run": True, "older_than": "24h"}),
        (["--partials", "--yes"], {"partials": True}),
        (["--blobs", "-y", "--age=0"], {"blobs": True, "older_than": "0"}),
    ],
)
def test_flags(cli: Cli, server: Script, words: list[str], body: dict[str, Any]) -> None:
    server.on("POST /api/prune", ok(FOUND))
    result = cli("prune", *words)
    assert sent(server) == [body]
    assert result.out.splitlines()[-1] == (
        "Would free 1.5 GB" if "dry_run" in body else "Freed 1.5 GB"
    )


def test_nothing_to_remove(cli: Cli, server: Script) -> None:
    server.on("POST /api/prune", ok(NONE))
    assert cli("prune") == (0, "Nothing to remove\n", "")


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions asked; the last word of the list of answers is the answer."""
    asked: list[str] = []
    monkeypatch.setattr(module, "_is_terminal", lambda: True)

    def confirm(prompt: str, default: bool = True) -> bool:
        assert not default
        asked.append(prompt)
        return len(asked) > 1

    monkeypatch.setattr(module, "confirm", confirm)
    return asked


def test_on_a_terminal_it_asks_first(cli: Cli, server: Script, on_terminal: list[str]) -> None:
    kept = {**FOUND, "kept": [{"name": "x", "reason": "it has just changed"}]}
    server.on("POST /api/prune", lambda request: ok(FOUND if request.json.get("dry_run") else kept))
    result = cli("prune", "--age", "2h")
    assert result.out.endswith("years ago    \nNothing removed\n")
    assert sent(server) == [{"dry_run": True, "older_than": "2h"}]
    result = cli("prune", "--age", "2h")
    assert on_terminal == ["Remove 1.5 GB?"] * 2
    assert sent(server)[1:] == [{"dry_run": True, "older_than": "2h"}, {"older_than": "2h"}]
    assert result.out.count("sha256-") == 1, "shown once"
    assert result.out.endswith("x       it has just changed    \nFreed 1.5 GB\n")


@pytest.mark.parametrize("words", [["--yes"], ["-n"]])
def test_it_does_not_ask_when_told_not_to(
    cli: Cli, server: Script, on_terminal: list[str], words: list[str]
) -> None:
    server.on("POST /api/prune", ok(FOUND))
    cli("prune", *words)
    assert len(sent(server)) == 1
    assert on_terminal == []


def test_it_does_not_ask_about_nothing(cli: Cli, server: Script, on_terminal: list[str]) -> None:
    server.on("POST /api/prune", ok(NONE))
    assert cli("prune") == (0, "Nothing to remove\n", "")
    assert (len(sent(server)), on_terminal) == (1, [])


def test_errors(cli: Cli, server: Script) -> None:
    server.on("POST /api/prune", error(409, "nothing is pruned"))
    assert cli("prune") == (1, "", "Error: nothing is pruned\n")
    assert cli("prune", "x").err == "Error: accepts 0 arg(s), received 1\n"


@pytest.mark.parametrize("command", ["prune", "disk"])
@pytest.mark.parametrize("status", [404, 405])
def test_another_server(cli: Cli, server: Script, command: str, status: int) -> None:
    def answer(_: Request) -> Answer:
        return Answer(b"404 page not found", status)

    server.on("POST /api/prune", answer)
    server.on("GET /api/disk", answer)
    text = "Error: the server cannot do this: it is not ollamad, or an older one\n"
    assert cli(command) == (1, "", text)


def test_report() -> None:
    entry = PrunedEntry(
        name=f"blobs/sha256-{HEX}-partial",
        kind="partial",
        size=1000,
        length=4_000_000,
        modified_at="1970-01-01T00:00:00Z",
    )
    kept = KeptEntry(name=f"compat/.sha256-{HEX}.v1.json.tmp", reason="younger than 1h")
    text = report(PruneResponse(entries=[entry], freed=1000, kept=[kept]), 2 * HOUR)
    assert cells(text) == [
        ["NAME", "KIND", "SIZE", "MODIFIED"],
        ["blobs/sha256-0123456789ab-partial", "partial", "1 KB of 4 MB", "2 hours ago"],
        ["KEPT", "REASON"],
        ["compat/.sha256-0123456789ab.v1.json.tmp", "younger than 1h"],
    ]


def cells(text: str) -> list[list[str]]:
    """Of the lines of tables; columns are at least two blanks apart."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("size", "length", "text"),
    [
        (0, 0, "0 B"),
        (4096, 250, "4.1 KB"),
        (1000, 1_000_000, "1 KB of 1 MB"),
        (12_000_000, 12_345_678, "12 MB"),
    ],
)
def test_sizes(size: int, length: int, text: str) -> None:
    assert size_text(size, length) == text


def test_names_are_short_and_harmless() -> None:
    assert short_name(f"blobs/sha256-{HEX}-partial") == "blobs/sha256-0123456789ab-partial"
    assert short_name("blobs/sha256-123456") == "blobs/sha256-123456"
    assert short_name("blobs/\x1b[2J\nx") == "blobs/\ufffd[2J\ufffdx"


def amount(size: int, length: int = 0) -> DiskAmount:
    return DiskAmount(number=1, size=size, length=length)


def test_disk(cli: Cli, server: Script) -> None:
    usage = DiskResponse(
        directory="/var/lib/my models",
        total=500_000_000_000,
        free=120_000_000_000,
        models=[
            DiskModel(name="m:latest", digest="a" * 64, size=5_000_000, unique=2_000, shared=0)
        ],
        blobs=amount(5_000_000),
        unreferenced=amount(0),
        partials=amount(1_000_000, 4_000_000_000),
        temporary=amount(4096),
        derived=amount(7),
        unreadable=["/x: bad\x1b"],
    )
    text = disk_report(usage)
    assert cells(text) == [
        ["NAME", "ID", "SIZE", "UNIQUE"],
        ["m:latest", "aaaaaaaaaaaa", "5 MB", "2 KB"],
        [""],
        ["Models' files", "5 MB"],
        ["needed by none", "0 B"],
        ["Unfinished downloads", "1 MB of 4 GB"],
        ["Temporary files", "4.1 KB"],
        ["Prepared for llama.cpp", "7 B"],
        ["Free", "120 GB of 500 GB"],
        ["Directory", "/var/lib/my models"],
        ["Unreadable", "/x: bad\ufffd"],
    ]
    server.on("GET /api/disk", Answer(msgspec.json.encode(usage)))
    assert cli("disk") == (0, text, "")
