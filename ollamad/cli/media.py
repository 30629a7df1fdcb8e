"""Files named in a prompt for a model that sees or hears (``cli.md`` 5.10)."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from ollamad.errors import OllamadError, quoted
from ollamad.modelfile.sniff import SNIFFED_BYTES, content_type

_CANDIDATE = re.compile(
    r"(?:[a-zA-Z]:)?(?:\./|/|\\)[\S\\ ]+?\.(?i:jpg|jpeg|png|webp|wav)\b", re.ASCII
)
_ESCAPED = re.compile(r"\\([ ()\[\]{}$&;'\\*?~])")
_LARGEST = 100 << 20
_TYPES = ("image/jpeg", "image/png", "image/webp", "audio/wave")


class Prompt(NamedTuple):
    """A text without the paths of the files that were found, and these files' content."""

    text: str
    media: list[bytes]


def candidates(text: str) -> list[str]:
    """What may be paths of media files in ``text``, as written there. Pure."""
    return [match[0] for match in _CANDIDATE.finditer(text)]


def unescaped(path: str) -> str:
    """``path`` without a shell's backslashes. Pure."""
    return _ESCAPED.sub(r"\1", path)


def extract(text: str) -> Prompt:
    """Read the files that ``text`` names; those that do not exist stay text.

    Tells on stderr what was added. Raises OllamadError for a file that is of another type, too
    large or not readable, after telling that, too.
    """
    media: list[bytes] = []
    for candidate in candidates(text):
        path = unescaped(candidate)
        try:
            content = _read(Path(path))
        except FileNotFoundError:
            continue
        except (OSError, OllamadError, ValueError) as error:
            reason = error.message if isinstance(error, OllamadError) else str(error)
            print(f"Couldn't process file: {quoted(reason)}", file=sys.stderr)
            raise OllamadError(reason) from error
        kind = "audio" if path.lower().endswith(".wav") else "image"
        print(f"Added {kind} '{path}'", file=sys.stderr)
        text = text.replace(f"'{path}'", "").replace(f"'{candidate}'", "")
        text = text.replace(path, "").replace(candidate, "")
        media.append(content)
    return Prompt(text.strip(), media)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
        kind = content_type(head)
        if kind not in _TYPES:
            raise OllamadError(f"invalid file type: {kind}")
        if os.fstat(file.fileno()).st_size > _LARGEST:
            raise OllamadError("file size exceeds maximum limit (100MB)")
        return head + file.read(_LARGEST - len(head))
