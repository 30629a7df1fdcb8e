"""``prune``: remove what no model needs from the server's model directory. Ours."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable

from msgspec.structs import replace

from ollamad.cli.client import Client
from ollamad.cli.commands import Invocation
from ollamad.cli.confirm import confirm
from ollamad.cli.errors import ServerError
from ollamad.cli.table import table
from ollamad.cli.times import unix_ns
from ollamad.units import human_bytes, human_time
from ollamad.wire import KeptEntry, PrunedEntry, PruneRequest, PruneResponse

#: As wide as it takes: names and reasons stay on one line.
_WIDE = 10_000
_HEX = re.compile(r"(sha256-[0-9a-fA-F]{12})[0-9a-fA-F]{52}")


def prune(invocation: Invocation) -> int:
    """``prune``: on a terminal it shows what goes and asks first."""
    parsed = invocation.parsed
    request = PruneRequest(
        dry_run=parsed.switch("dry-run"),
        older_than=parsed.text("age"),
        partials=parsed.switch("partials"),
        blobs=parsed.switch("blobs"),
    )
    asks = not request.dry_run and not parsed.switch("yes") and _is_terminal()
    if asks:
        planned = _ask_server(invocation.client, replace(request, dry_run=True))
        print(report(planned, time.time_ns()), end="", flush=True)
        if not planned.entries:
            return 0
        if not confirm(f"Remove {human_bytes(planned.freed)}?", default=False):
            print("Nothing removed")
            return 0
    answer = _ask_server(invocation.client, request)
    if asks:
        print(kept_table(answer.kept), end="")
    else:
        print(report(answer, time.time_ns()), end="")
    if answer.entries:
        verb = "Would free" if request.dry_run else "Freed"
        print(f"{verb} {human_bytes(answer.freed)}")
    return 0


def report(answer: PruneResponse, now: int) -> str:
    """What goes and what does not. Pure. ``now`` is in Unix nanoseconds."""
    if not answer.entries:
        return "Nothing to remove\n" + kept_table(answer.kept)
    return entries_table(answer.entries, now) + kept_table(answer.kept)


def entries_table(entries: Iterable[PrunedEntry], now: int) -> str:
    rows = [
        (
            short_name(entry.name),
            entry.kind,
            size_text(entry.size, entry.length),
            human_time(unix_ns(entry.modified_at), now, "Never"),
        )
        for entry in entries
    ]
    return table(rows, ("NAME", "KIND", "SIZE", "MODIFIED"), _WIDE)


def kept_table(kept: Iterable[KeptEntry]) -> str:
    rows = [(short_name(entry.name), printable(entry.reason)) for entry in kept]
    return table(rows, ("KEPT", "REASON"), _WIDE) if rows else ""


def size_text(size: int, length: int) -> str:
    """Bytes on disk, and of what they are a part: a download that is not complete."""
    part, whole = human_bytes(size), human_bytes(length)
    return f"{part} of {whole}" if length > size and part != whole else part


def short_name(name: str) -> str:
    """Digests as everywhere: their first 12 digits."""
    return printable(_HEX.sub(r"\1", name))


def printable(text: str) -> str:
    """File names may hold anything, also what a terminal obeys."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _ask_server(client: Client, request: PruneRequest) -> PruneResponse:
    try:
        return client.post(PruneResponse, "/api/prune", request)
    except ServerError as error:
        raise not_ours(error) from error


def not_ours(error: ServerError) -> ServerError:
    """``error``, unless it means that the server is another program."""
    if error.status in (404, 405):
        return ServerError("the server cannot do this: it is not ollamad, or an older one")
    return error


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
