"""What is in a model directory, and what of it nothing needs (registry-and-store 2.8, 2.9, 3.6).

Pure: who has looked at the disk asks here. Sizes are bytes on disk, lengths are bytes in files: a
download's data file is as long as the blob from the start, but holds only what has arrived.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from ollamad.store.digests import blob_filename, is_digest
from ollamad.units import HOUR, format_duration

#: ``blob``: no model names it. ``partial``: a download's data and part files, one unit: resuming
#: from a part of them does damage. ``temporary``: an unfinished file. ``import``: a work directory.
#: ``derived``: made of a blob for llama.cpp.
Kind = Literal["blob", "partial", "temporary", "import", "derived"]
KINDS: tuple[Kind, ...] = ("blob", "partial", "temporary", "import", "derived")

#: A younger file may belong to an operation, of any process, that has no manifest yet.
GRACE_NS = HOUR

_PARTIAL = re.compile(r"\.?(sha256-[0-9a-fA-F]{64})-partial(?:-(\d+))?(.*)", re.DOTALL)
_IN_MODELS = re.compile(r"ollama-safetensors\d+")
_IN_BLOBS = re.compile(r"split-gguf-\d+")
_TEMPORARY = ".tmp"


class Entry(NamedTuple):
    """A file, or a work directory with all that is in it. ``path`` is below the models directory.

    ``modified_ns`` is since the epoch, of the newest file.
    """

    path: str
    length: int
    size: int
    modified_ns: int
    is_directory: bool = False

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class Contents(NamedTuple):
    """What was found, besides manifests: files of ``blobs`` and ``compat``, directories that may
    be work directories, and our own unfinished manifests."""

    blobs: Sequence[Entry] = ()
    directories: Sequence[Entry] = ()
    derived: Sequence[Entry] = ()
    manifests: Sequence[Entry] = ()


class Item(NamedTuple):
    """What is removed or kept as one. ``entries`` are in the order of their removal.

    ``blob``: the file name of the blob that it is, or is a part of, or was made of.
    """

    kind: Kind
    name: str
    entries: tuple[Entry, ...]
    modified_ns: int
    blob: str = ""

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def length(self) -> int:
        return sum(entry.length for entry in self.entries)


class Kept(NamedTuple):
    """What is not removed, and why."""

    name: str
    reason: str


class Amount(NamedTuple):
    """So many files or sets of them, their bytes on disk and their length."""

    number: int = 0
    size: int = 0
    length: int = 0

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Amount:
        found = list(entries)
        size, length = sum(e.size for e in found), sum(e.length for e in found)
        return cls(len(found), size, length)


class ModelUsage(NamedTuple):
    """A model's blobs and what was made of them. ``unique``: bytes that go with it alone."""

    name: str
    digest: str
    size: int
    unique: int

    @property
    def shared(self) -> int:
        return self.size - self.unique


class Usage(NamedTuple):
    """All of a model directory but its manifests. ``blobs``: every whole one."""

    models: tuple[ModelUsage, ...]
    blobs: Amount
    unreferenced: Amount
    partials: Amount
    temporary: Amount
    derived: Amount


def is_work_directory(name: str, *, in_blobs: bool) -> bool:
    """Whether an import of this or another program makes directories of that name (2.8)."""
    return (_IN_BLOBS if in_blobs else _IN_MODELS).fullmatch(name) is not None


def files_of(references: Iterable[str]) -> frozenset[str]:
    """File names of the blobs that a manifest names; what is no digest names none."""
    return frozenset(blob_filename(digest) for digest in references if is_digest(digest))


def unneeded(contents: Contents, referenced: Collection[str], *, version: str) -> list[Item]:
    """Everything that no model needs, whatever its age, ordered by kind and name.

    ``referenced``: file names of blobs. ``version``: that of derived files, such as ``v1``.
    """
    items = []
    partials: dict[str, list[Entry]] = {}
    for entry in contents.blobs:
        if part := _PARTIAL.fullmatch(entry.name):
            partials.setdefault(part[1], []).append(entry)
        elif not is_digest(entry.name):
            items.append(Item("temporary", entry.path, (entry,), entry.modified_ns))
        elif entry.name not in referenced:
            made = _made_of(contents.derived, entry.name)
            items.append(
                Item("blob", entry.path, (entry, *made), entry.modified_ns, blob=entry.name)
            )
    items += [_partial(blob, entries) for blob, entries in partials.items()]
    items += [
        Item("temporary", entry.path, (entry,), entry.modified_ns) for entry in contents.manifests
    ]
    items += [
        Item("import", entry.path, (entry,), entry.modified_ns) for entry in contents.directories
    ]
    there = {entry.name for entry in contents.blobs}
    items += _unneeded_derived(contents.derived, there, referenced, version)
    return sorted(items, key=lambda item: (KINDS.index(item.kind), item.name))


def _partial(blob: str, entries: Iterable[Entry]) -> Item:
    """A whole set. Ended at any moment, its removal leaves what every program starts anew from.

    That is so as long as the parts left are the first ones, or there is none. The data goes last.
    """
    ordered = tuple(sorted(entries, key=_from_the_end))
    newest = max(entry.modified_ns for entry in ordered)
    return Item("partial", f"blobs/{blob}-partial", ordered, newest, blob=blob)


def _from_the_end(entry: Entry) -> tuple[int, int, str]:
    part = _PARTIAL.fullmatch(entry.name)
    if part is None or part[3] or entry.name[0] == ".":
        return (0, 0, entry.name)
    return (2, 0, "") if part[2] is None else (1, -int(part[2]), entry.name)


def _made_of(derived: Iterable[Entry], blob: str) -> list[Entry]:
    """Notes first: without the files they would lie."""
    made = [entry for entry in derived if entry.name.startswith(f"{blob}.")]
    return sorted(made, key=lambda entry: (not entry.name.endswith(".json"), entry.name))


def _unneeded_derived(
    derived: Iterable[Entry], there: Collection[str], referenced: Collection[str], version: str
) -> list[Item]:
    """Unfinished files, and those whose blob is gone or that this version does not use."""
    found = list(derived)
    notes = {entry.name for entry in found if entry.name.endswith(f".{version}.json")}
    items = []
    for entry in found:
        blob, _, rest = entry.name.partition(".")
        if entry.name.endswith(_TEMPORARY):
            items.append(Item("temporary", entry.path, (entry,), entry.modified_ns))
        elif not is_digest(blob) or (blob in there and blob not in referenced):
            continue  # not ours, or it goes with its blob
        elif (
            blob not in there
            or not rest.startswith(f"{version}.")
            or f"{blob}.{version}.json" not in notes
        ):
            items.append(Item("derived", entry.path, (entry,), entry.modified_ns))
    return items


def decide(
    items: Iterable[Item], *, kinds: Collection[Kind], now_ns: int, least_age_ns: int
) -> tuple[list[Item], list[Kept]]:
    """What of ``items`` to remove, and what not yet. Other kinds are in neither list."""
    remove, keep = [], []
    for item in items:
        if item.kind not in kinds:
            continue
        if least_age_ns <= 0 or now_ns - item.modified_ns >= least_age_ns:
            remove.append(item)
        else:
            keep.append(Kept(item.name, f"younger than {_age(least_age_ns)}"))
    return remove, keep


def _age(duration_ns: int) -> str:
    """``1h``, not ``1h0m0s``."""
    text = format_duration(duration_ns)
    if text.endswith("m0s"):
        text = text.removesuffix("0s")
    return text.removesuffix("0m") if text.endswith("h0m") else text


class ModelFiles(NamedTuple):
    """A model, and the file names of the blobs that its manifest names."""

    name: str
    digest: str
    blobs: frozenset[str]


def measure(contents: Contents, models: Sequence[ModelFiles], *, version: str) -> Usage:
    """How many bytes each model and each kind of file takes; the largest models first.

    ``version``: as in `unneeded`.
    """
    sizes: dict[str, int] = {}
    for entry in (*contents.blobs, *contents.derived):
        blob = entry.name.partition(".")[0]
        sizes[blob] = sizes.get(blob, 0) + entry.size
    users: dict[str, int] = {}
    for model in models:
        for blob in model.blobs:
            users[blob] = users.get(blob, 0) + 1
    items = unneeded(contents, users, version=version)
    return Usage(
        models=tuple(
            sorted(
                (_model_usage(model, sizes, users) for model in models),
                key=lambda model: (-model.size, model.name),
            )
        ),
        blobs=Amount.of(entry for entry in contents.blobs if is_digest(entry.name)),
        # Without what was made of them, which is in ``derived``.
        unreferenced=Amount.of(item.entries[0] for item in items if item.kind == "blob"),
        partials=_amount(items, "partial"),
        temporary=_amount(items, "temporary", "import"),
        derived=Amount.of(entry for entry in contents.derived if is_digest(entry.name[:71])),
    )


def _model_usage(model: ModelFiles, sizes: dict[str, int], users: dict[str, int]) -> ModelUsage:
    own = {blob: sizes.get(blob, 0) for blob in model.blobs}
    unique = sum(size for blob, size in own.items() if users[blob] == 1)
    return ModelUsage(model.name, model.digest, sum(own.values()), unique)


def _amount(items: Iterable[Item], *kinds: Kind) -> Amount:
    found = [item for item in items if item.kind in kinds]
    size, length = sum(item.size for item in found), sum(item.length for item in found)
    return Amount(len(found), size, length)
