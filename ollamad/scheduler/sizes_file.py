"""What launches were seen to take, kept across restarts in a small file.

A cache: when it is missing, damaged or from another version it is as good as empty.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ollamad.scheduler.ledger import REMEMBERED_SIZES
from ollamad.scheduler.sizing import Seen, SizeKey
from ollamad.store.durable import replace_file

log = logging.getLogger(__name__)

_VERSION = 1
#: Bytes of a file that is read, and of memory that a launch is believed to take.
_LONGEST = 4 << 20
_MOST = 1 << 50


class _Launch(msgspec.Struct, frozen=True):
    key: str
    context: int
    slots: int
    kv_cache_type: str
    total: int
    on_devices: int


class _File(msgspec.Struct, frozen=True):
    version: int
    launches: list[_Launch]


class SizesFile:
    """The file at ``path``. Both methods block on the disk and raise nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[SizeKey, Seen]:
        """What is in it, the latest last."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(_LONGEST + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.debug("the sizes of launches cannot be read", extra={"error": str(error)})
            return {}
        try:
            found = msgspec.json.decode(raw, type=_File) if len(raw) <= _LONGEST else None
        except (msgspec.DecodeError, RecursionError) as error:
            log.debug("the file of the sizes of launches is damaged", extra={"error": str(error)})
            return {}
        if found is None or found.version != _VERSION:
            return {}
        return {
            (one.key, one.context, one.slots, one.kv_cache_type): Seen(one.total, one.on_devices)
            for one in found.launches[-REMEMBERED_SIZES:]
            if 0 <= one.on_devices <= one.total <= _MOST and one.total > 0
        }

    def write(self, sizes: Mapping[SizeKey, Seen]) -> None:
        """Replace the file."""
        launches = [_Launch(*key, seen.total, seen.on_devices) for key, seen in sizes.items()]
        raw = msgspec.json.encode(_File(_VERSION, launches[-REMEMBERED_SIZES:]))
        try:
            replace_file(self.path, raw)
        except OSError as error:
            log.debug("the sizes of launches cannot be kept", extra={"error": str(error)})
