"""What the GGUFs of a create are: read from the files. Blocks on the disk."""

from __future__ import annotations

from pathlib import Path

from ollamad.create.layers import Weights
from ollamad.create.split import SplitInfo
from ollamad.errors import BadRequest
from ollamad.gguf.classify import is_adapter, media_kind, needs_projector_type
from ollamad.gguf.facts import Facts, cached_facts, facts_of
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.reader import has_magic, open_gguf
from ollamad.gguf.validate import refuse_big_endian, validate
from ollamad.store.manifest import MEDIA_ADAPTER, MEDIA_MODEL, MEDIA_PROJECTOR

_MEDIA_TYPES = {
    "model": MEDIA_MODEL,
    "adapter": MEDIA_ADAPTER,
    "projector": MEDIA_PROJECTOR,
}


def read_head(path: Path) -> bytes:
    """The first four bytes of a file. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        return file.read(4)


def uploaded_weights(path: Path) -> Weights:
    """An uploaded GGUF, classified (4.3).

    Raises OSError when the file cannot be opened, BadRequest when it is no GGUF or one of the
    other byte order, GGUFError (500) when its header is damaged.
    """
    if not has_magic(read_head(path)):
        raise BadRequest("supplied file was not in GGUF format")
    with open_gguf(path, strict=True) as file:
        refuse_big_endian(file)
        facts = facts_of(file)
        return weights_of_facts(
            facts,
            _MEDIA_TYPES[media_kind(file)],
            can_adapt=is_adapter(file),
            lacks_projector_type=needs_projector_type(file),
            split=_split(file, facts),
        )


def stored_weights(path: Path, media_type: str) -> Weights:
    """The GGUF of a layer that was stored before. Raises FileNotFoundError and GGUFError.

    Tensors of unknown types are let pass: the model may be newer than this program.
    """
    return weights_of_facts(cached_facts(path), media_type)


def validate_file(path: Path) -> None:
    """Raise GGUFError ``failed to validate GGUF: …`` unless a runner could load its structure."""
    with open_gguf(path, strict=True) as file:
        validate(file)


def weights_of_facts(
    facts: Facts,
    media_type: str,
    *,
    can_adapt: bool = False,
    lacks_projector_type: bool = False,
    split: SplitInfo | None = None,
) -> Weights:
    """What create needs of these facts, and of what is seen in the file besides."""
    return Weights(
        architecture=facts.arch,
        media_type=media_type,
        is_adapter=can_adapt,
        file_type=facts.file_type,
        parameter_count=facts.parameter_count,
        tensor_count=facts.tensor_count,
        has_embedded_tensors=bool(facts.tensor_prefixes),
        lacks_projector_type=lacks_projector_type,
        chat_template=facts.chat_template,
        split=split,
    )


def _split(file: GGUFFile, facts: Facts) -> SplitInfo | None:
    if facts.split_count <= 1:
        return None
    key = "split.tensors.count"
    tensors = file.metadata.get(key, file.metadata.get(file.full_key(key)))
    return SplitInfo(
        number=facts.split_no,
        count=facts.split_count,
        tensor_count=tensors if type(tensors) is int else None,
    )
