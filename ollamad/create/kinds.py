"""What uploaded files are, by their names and first bytes (4.3). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from ollamad.errors import BadRequest
from ollamad.gguf.reader import has_magic

FilesKind = Literal["gguf", "safetensors"]

#: The first bytes of the blob with this digest, four if it has them; b"" if it cannot be read.
Head = Callable[[str], bytes]

_COMPANION_SUFFIXES = (".json", ".jinja", ".txt", ".md")
_COMPANION_NAMES = ("tokenizer.model",)


def kind_of_files(files: Mapping[str, str], head: Head) -> FilesKind:
    """How ``files``, digests by file name, are imported. Raises BadRequest ``unknown type``.

    Names decide before content does; ``head`` is only asked when no name tells.
    """
    if any(name.endswith(".safetensors") for name in files):
        return "safetensors"
    if any(name.endswith(".gguf") for name in files):
        return "gguf"
    if any(has_magic(head(digest)) for digest in files.values()):
        return "gguf"
    raise BadRequest("unknown type")


def gguf_names(names: Iterable[str]) -> list[str]:
    """The names to read as GGUF, sorted: what clients send beside the weights is left out.

    A directory of GGUFs comes with its JSON files, none of which an import needs.
    """
    ordered = sorted(names)
    weights = [name for name in ordered if not _is_companion(name)]
    return weights or ordered


def _is_companion(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base in _COMPANION_NAMES or base.endswith(_COMPANION_SUFFIXES)
