"""``disk``: what takes how much room in the server's model directory. Ours."""

from __future__ import annotations

from ollamad.cli.commands import Invocation
from ollamad.cli.errors import ServerError
from ollamad.cli.prune import not_ours, printable, size_text
from ollamad.cli.table import table
from ollamad.units import human_bytes
from ollamad.wire import DiskAmount, DiskResponse

_WIDE = 10_000


def disk(invocation: Invocation) -> int:
    """``disk``."""
    try:
        usage = invocation.client.get(DiskResponse, "/api/disk")
    except ServerError as error:
        raise not_ours(error) from error
    print(report(usage), end="")
    return 0


def report(usage: DiskResponse) -> str:
    """The models, then the totals. Pure."""
    rows = [
        (model.name, model.digest[:12], human_bytes(model.size), human_bytes(model.unique))
        for model in usage.models
    ]
    totals = [
        ("Models' files", _text(usage.blobs)),
        ("  needed by none", _text(usage.unreferenced)),
        ("Unfinished downloads", _text(usage.partials)),
        ("Temporary files", _text(usage.temporary)),
        ("Prepared for llama.cpp", _text(usage.derived)),
        ("Free", f"{human_bytes(usage.free)} of {human_bytes(usage.total)}"),
        ("Directory", printable(usage.directory)),
    ]
    totals += [("Unreadable", printable(problem)) for problem in usage.unreadable]
    return table(rows, ("NAME", "ID", "SIZE", "UNIQUE"), _WIDE) + "\n" + table(totals, (), _WIDE)


def _text(amount: DiskAmount) -> str:
    return size_text(amount.size, amount.length)
