"""What all text models have in common: names, vocabulary, no tensors of other senses (2, 2.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping

from ollamad.errors import quoted
from ollamad.gguf import names
from ollamad.gguf.cursor import Cursor
from ollamad.gguf.derive.plan import TextPlan
from ollamad.gguf.derive.tensors import with_small_ones_as_f32
from ollamad.gguf.encoding import EncodedArray, Writable, encode_string
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.values import Array, ValueType, fixed_size
from ollamad.gguf.writer import Tensor, tensors_of

#: Of eyes, ears, projectors and drafts: in a text model each of them is one too many.
FOREIGN_TENSORS = ("a.", "mm.", "model.vision_tower.", "mtp.", "s.", "v.")
#: What the keys of those begin with, below the architecture.
_FOREIGN_KEYS = ("audio.", "mm.", "sam.", "vision.")

#: The type of a token that stands for nothing.
_UNUSED = 5


def text_plan(
    file: GGUFFile,
    *,
    arch: str | None = None,
    copies: Mapping[str, str] | None = None,
    defaults: Mapping[str, Writable] | None = None,
    values: Mapping[str, Writable] | None = None,
    drop: Collection[str] = (),
    change: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> TextPlan:
    """The text model of ``file`` as one of the architecture ``arch`` (None: its own).

    Keys are full ones, as they are after the architecture changed. ``copies``: what keys get the
    value of a key (which goes) unless they are there; ``defaults``: what they get if still absent;
    ``values``: what they get in any case; ``drop``: keys that go. ``change`` may rename or convert
    a tensor. Raises GGUFError for tensors of a type that nobody knows.
    """
    target = arch or file.arch
    kept = _moved(file, target)
    by_new_name = {new: old for old, new in kept.items()}
    for new, source in (copies or {}).items():
        if source in by_new_name:
            old = by_new_name.pop(source)
            if new in by_new_name:
                del kept[old]
            else:
                kept[old], by_new_name[new] = new, old
    add = {key: value for key, value in (defaults or {}).items() if key not in by_new_name}
    add |= values or {}
    if target != file.arch:
        add["general.architecture"] = target
    tensors = _tensors(file, change)
    add |= _vocabulary(file, tensors)
    foreign = tuple(f"{target}.{prefix}" for prefix in _FOREIGN_KEYS)
    kept = {
        old: new
        for old, new in kept.items()
        if not new.startswith(foreign) and new not in drop and new not in add
    }
    return TextPlan(
        base=file,
        drop=frozenset(file.metadata.keys() - kept.keys()),
        add=add,
        rename={old: new for old, new in kept.items() if old != new},
        tensors=tensors,
    )


def _moved(file: GGUFFile, target: str) -> dict[str, str]:
    """The keys that stay and their new names; one that is already there under its new name wins."""
    prefix = f"{file.arch}."
    names_of = {
        key: f"{target}.{key.removeprefix(prefix)}" if key.startswith(prefix) else key
        for key in file.metadata
    }
    return {old: new for old, new in names_of.items() if old == new or new not in file.metadata}


def _tensors(file: GGUFFile, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    kept = [
        tensor
        for tensor in map(change, tensors_of(file))
        if not tensor.name.startswith(FOREIGN_TENSORS)
    ]
    for tensor in kept:
        if tensor.type_id not in names.TENSOR_TYPES:
            raise GGUFError(f"tensor {quoted(tensor.name)} has the unknown type {tensor.type_id}")
    return with_small_ones_as_f32(kept)


# --- vocabulary -----------------------------------------------------------------------------------


def _vocabulary(file: GGUFFile, tensors: tuple[Tensor, ...]) -> dict[str, Writable]:
    """The lists of tokens, if they are not as long as the embeddings: cut, or filled up (2.1)."""
    rows = next((t.shape[1] for t in tensors if _holds_embeddings(t)), 0)
    tokens = file.get_array("tokenizer.ggml.tokens")
    if not rows or tokens is None:
        return {}
    fitted: dict[str, Writable] = {}
    for key, filler in (
        ("tokenizer.ggml.tokens", lambda number: encode_string(f"[PAD{number}]")),
        ("tokenizer.ggml.scores", lambda _: struct.pack("<f", 0.0)),
        ("tokenizer.ggml.token_type", lambda _: struct.pack("<i", _UNUSED)),
    ):
        array = file.get_array(key)
        if array is not None and len(array) != rows:
            fitted[key] = _fitted(array, rows, filler)
    return fitted


def _holds_embeddings(tensor: Tensor) -> bool:
    return tensor.name == "token_embd.weight" and len(tensor.shape) == 2


def _fitted(array: Array, rows: int, filler: Callable[[int], bytes]) -> EncodedArray:
    """The first ``rows`` elements, as they are: tokens need not be UTF-8."""
    count = min(len(array), rows)
    if array.element_type is ValueType.STRING:
        cursor = Cursor(array.span.source)
        cursor.position = array.span.start
        kept = cursor.skip_strings(count).read()
    else:
        kept = array.span.read()[: count * fixed_size(array.element_type)]
    padding = b"".join(filler(number) for number in range(count, rows))
    return EncodedArray(array.element_type, rows, kept + padding)
