"""A blob in parts: how it is cut, and what of each part is there already.

Source: registry-and-store 3.5 (cutting) and 3.6 (part files). Pure. Offsets and sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ollamad.store.errors import ManifestError
from ollamad.store.json_text import Fields, decode_first, encode

LEAST_PART = 100_000_000
MOST_PART = 1_000_000_000

#: A part is a sixteenth of the blob, if that is neither too small nor too large.
_PARTS = 16


@dataclass(frozen=True, slots=True)
class Part:
    """``size`` bytes from ``offset``, of which the first ``completed`` are there."""

    number: int
    offset: int
    size: int
    completed: int = 0

    @property
    def next(self) -> int:
        """The offset of the first byte that is missing."""
        return self.offset + self.completed

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.offset + self.size

    @property
    def is_complete(self) -> bool:
        return self.completed == self.size


def cut(total: int, least: int = LEAST_PART, most: int = MOST_PART) -> list[Part]:
    """The parts of a blob of ``total`` bytes: sixteenths of at least ``least`` and at most ``most``
    bytes, the last one shorter. None for an empty blob."""
    size = min(max(total // _PARTS, least), most)
    return [
        Part(number, offset, min(size, total - offset))
        for number, offset in enumerate(range(0, total, size))
    ]


def encode_part(part: Part) -> bytes:
    """The part file: its keys and their order are shared with other versions (3.6)."""
    fields = {
        "N": part.number,
        "Offset": part.offset,
        "Size": part.size,
        "Completed": part.completed,
    }
    return encode(fields) + b"\n"


def parse_part(raw: bytes) -> Part | None:
    """What a part file says; None when it cannot be read. Nothing in it is checked."""
    try:
        fields = Fields(decode_first(raw), "server.blobDownloadPart")
        return Part(
            number=fields.integer("N"),
            offset=fields.integer("Offset"),
            size=fields.integer("Size"),
            completed=fields.integer("Completed"),
        )
    except ManifestError:
        return None


def accepted(
    files: Collection[bytes], *, data_size: int | None, stated: int = 0
) -> list[Part] | None:
    """The parts to go on with, by number; None when they must not be believed (3.6).

    ``files``: the contents of all part files in any order. ``data_size``: bytes of the data file,
    None when there is none. ``stated``: the size in the manifest, not positive when that says
    nothing. Parts that are not whole and contiguous, or that claim bytes which the data file does
    not have, would end in a blob with holes.
    """
    read = [parse_part(raw) for raw in files]
    parts = [part for part in read if part is not None]
    if not parts or len(parts) != len(read):
        return None
    parts.sort(key=lambda part: part.number)
    end = 0
    for number, part in enumerate(parts):
        if part.number != number or part.offset != end or part.size <= 0:
            return None
        if not 0 <= part.completed <= part.size:
            return None
        if part.completed and (data_size is None or part.next > data_size):
            return None
        end = part.end
    if stated > 0 and end != stated:
        return None
    return parts
