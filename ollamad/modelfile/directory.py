"""Which files of a model directory belong to the model (modelfile-and-create 3.2, cli.md 3.4).

``choose`` is pure: a listing in, file names out. ``list_directory`` is the I/O beside it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ollamad.modelfile.errors import ModelfileError
from ollamad.modelfile.sniff import BINARY, TEXT, ZIP, is_text

#: The content type of a listed file, by its name in the listing.
Sniff = Callable[[str], str]

NOTHING_FOUND = "no Modelfile or safetensors files found"

# First match wins: pattern of the weights, the type that all of them must have.
_WEIGHTS: tuple[tuple[str, str | None], ...] = (
    ("model*.safetensors", None),
    ("consolidated*.safetensors", None),
    ("pytorch_model*.bin", ZIP),
    ("consolidated*.pth", ZIP),
    ("*.gguf", BINARY),
    ("*.bin", BINARY),
)


def choose(
    listing: Sequence[str], sniff: Sniff, where: Path, *, adapter: bool = False
) -> list[str]:
    """The names of ``listing`` that are sent, weights first.

    ``listing`` holds the files of the directory and of its subdirectories, the latter as ``sub/x``;
    ``where`` is the directory as error texts name it. For an adapter, the names that training tools
    give are tried first. Raises ModelfileError if there are no weights or if a file that goes with
    them is not text.
    """
    chosen = _weights(listing, sniff, adapter)
    if not chosen:
        raise ModelfileError(NOTHING_FOUND)
    companions = matching(listing, "*.json") + matching(listing, "*/*.json")
    companions += matching(listing, "chat_template.jinja")
    for name in companions:
        found = sniff(name)
        if not is_text(found):
            raise ModelfileError(f"invalid content type: expected {found} for {where / name}")
    chosen += companions
    tokenizer = _all_of(BINARY, matching(listing, "tokenizer.model"), sniff)
    return chosen + (tokenizer or _all_of(TEXT, matching(listing, "*/tokenizer.model"), sniff))


def _weights(listing: Sequence[str], sniff: Sniff, adapter: bool) -> list[str]:
    if adapter and (found := matching(listing, "adapter_model*.safetensors")):
        return found
    for pattern, kind in _WEIGHTS:
        found = matching(listing, pattern)
        if kind is not None:
            found = _all_of(kind, found, sniff)
        if found:
            if pattern == "model*.safetensors":
                found += matching(listing, "*/model*.safetensors")
            return found
    return []


def matching(listing: Iterable[str], pattern: str) -> list[str]:
    """The names that match, sorted. ``*`` stands for anything but ``/``, a leading dot included."""
    wanted = pattern.split("/")

    def matches(name: str) -> bool:
        parts = name.split("/")
        return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))

    return sorted(filter(matches, listing))


def _all_of(kind: str, names: list[str], sniff: Sniff) -> list[str]:
    """``names`` if all of them have that type, else none of them."""
    return names if all(sniff(name) == kind for name in names) else []


def list_directory(directory: Path) -> list[str]:
    """The files of ``directory`` and of its subdirectories, one level down, as ``choose`` wants it.

    Links count as what they point to; a dangling one is listed, so that it is missed by name later.
    Pipes, sockets and devices are not files. An unreadable subdirectory counts as empty. Raises
    OSError if ``directory`` itself cannot be read.
    """
    names: list[str] = []
    for name, is_directory in _entries(directory):
        if not is_directory:
            names.append(name)
            continue
        try:
            inner = _entries(directory / name)
        except OSError:
            continue
        names.extend(f"{name}/{below}" for below, nested in inner if not nested)
    return names


def _entries(directory: Path) -> list[tuple[str, bool]]:
    """Names and whether they are directories."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                mode = entry.stat().st_mode
            except OSError:
                found.append((entry.name, False))
                continue
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                found.append((entry.name, stat.S_ISDIR(mode)))
    return found


def check_inside(directory: Path, resolved: Path) -> None:
    """Raise ModelfileError unless the resolved file lies inside the resolved directory."""
    relative = Path(os.path.relpath(resolved, directory)).as_posix()
    if relative != ".." and not relative.startswith("../"):
        return
    text = f"insecure path: {relative}"
    if ".cache" in relative:
        text += "\n\nUse --local-dir <dir> when downloading model to disable caching"
    raise ModelfileError(text)


def names_sent(paths: Iterable[str]) -> dict[str, str]:
    """For each absolute path the name under which its digest is sent (C5). Pure.

    A single file goes by its base name, several by their paths below the deepest directory that
    holds them all.
    """
    all_paths = list(paths)
    if len(all_paths) == 1:
        return {path: PurePosixPath(path).name for path in all_paths}
    if not all_paths:
        return {}
    common = os.path.commonpath([os.path.dirname(path) for path in all_paths])  # noqa: PTH120
    return {path: PurePosixPath(path).relative_to(common).as_posix() for path in all_paths}
