"""What all projectors have in common (2, 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.gguf.derive.tensors import as_f32, renamed, with_small_ones_as_f32
from ollamad.gguf.encoding import Writable
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.writer import Tensor, tensors_of

HALF = (0.5, 0.5, 0.5)


def general_keys(file: GGUFFile) -> dict[str, Writable]:
    """What every projector made from ``file`` says of itself."""
    keys: dict[str, Writable] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.file_type": 1,
        "general.quantization_version": 2,
    }
    name = file.get_str("general.name")
    return keys if name is None else keys | {"general.name": name}


def required_int(file: GGUFFile, key: str) -> int:
    """An integer below the architecture. Raises GGUFError without it."""
    value = file.get_int(key)
    if value is None:
        raise _missing(file, key)
    return value


def required_float(file: GGUFFile, key: str) -> float:
    """A float below the architecture. Raises GGUFError without it."""
    value = file.get_float(key)
    if value is None:
        raise _missing(file, key)
    return value


def projector_tensors(
    file: GGUFFile,
    prefixes: tuple[str, ...],
    rules: Sequence[tuple[str, str]],
    *,
    f32: Sequence[str] = (),
) -> tuple[Tensor, ...]:
    """The tensors of ``file`` below ``prefixes``, renamed; those in ``f32`` (new names) as F32."""
    chosen = [
        Tensor(renamed(t.name, rules), t.type_id, t.shape, t.data)
        for t in tensors_of(file)
        if t.name.startswith(prefixes)
    ]
    return with_small_ones_as_f32(as_f32(t) if t.name in f32 else t for t in chosen)


def _missing(file: GGUFFile, key: str) -> GGUFError:
    return GGUFError(f"the projector in the file cannot be used: {file.full_key(key)} is missing")
