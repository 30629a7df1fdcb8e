"""A model in several files: which files are its shards, and what they say together.

Some registries serve a split GGUF as one layer a shard. llama.cpp loads such a model from all of
its files; the first one (``split.no`` 0) has the keys, each has some tensors
(``modelfile-and-create.md`` 9.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ollamad.gguf.activations import activations_of
from ollamad.gguf.caches import MAX_LAYERS
from ollamad.gguf.facts import (
    Facts,
    FactsCache,
    facts_of,
    inferred_file_type,
    matrix_types,
)
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.reader import open_gguf
from ollamad.gguf.weights import Weights, weights_of

#: More files than this are no model but an attempt to keep us busy.
MAX_SHARDS = 1024


@dataclass(frozen=True, slots=True)
class Shards:
    """Files that are shards of one model.

    ``order``: positions among the given files, by ``split.no``; ``count``: how many shards the
    model has; ``missing``: the numbers, from 0, of those that no file is.
    """

    order: tuple[int, ...]
    count: int
    missing: tuple[int, ...]


def arrange(files: Sequence[Facts | None]) -> Shards | None:
    """How ``files`` make one model; None when they do not. None among them: cannot be read.

    They do when all that can be read name the same number of shards, at least two and not fewer
    than there are files, and each another place among them. Pure.
    """
    present = {index: facts for index, facts in enumerate(files) if facts is not None}
    counts = {facts.split_count for facts in present.values()}
    if len(counts) != 1:
        return None
    count = counts.pop()
    if not 1 < count <= MAX_SHARDS or count < len(files):
        return None
    by_number = {facts.split_no: index for index, facts in present.items()}
    numbers = [number for number in by_number if number is not None and number < count]
    if len(numbers) != len(present):
        return None
    missing = sorted(set(range(count)) - set(numbers))
    return Shards(tuple(by_number[number] for number in sorted(numbers)), count, tuple(missing))


def read_shards(*paths: Path) -> Facts:
    """The facts of the model whose shards these are, in order: as of one merged file (9.3).

    Two files are open at a time. Raises FileNotFoundError and GGUFError.
    """
    types: Counter[str] = Counter()
    with open_gguf(paths[0]) as first:
        facts = facts_of(first)
        types += matrix_types(first)
        samples = weights_of(first, 0).samples
        for path in paths[1:]:
            with open_gguf(path) as file:
                weights = weights_of(file, min(facts.block_count, MAX_LAYERS))
                facts = _with_tensors_of(file, facts, weights)
                types += matrix_types(file)
                samples = weights.samples | samples
        activations = activations_of(first, samples)
    return msgspec.structs.replace(
        facts,
        file_type=inferred_file_type(types) if facts.file_type_id is None else facts.file_type,
        activation=activations.most,
        attention_activation=activations.attention,
        split_no=None,
        split_count=0,
        split_tensor_count=None,
    )


_cache = FactsCache(read=read_shards)


def cached_shards(paths: Sequence[Path]) -> Facts:
    """Like ``read_shards``, at the cost of one ``stat`` a file when they are known."""
    return _cache.get(*paths)


def _with_tensors_of(file: GGUFFile, facts: Facts, weights: Weights) -> Facts:
    return msgspec.structs.replace(
        facts,
        parameter_count=facts.parameter_count + file.parameter_count,
        tensor_count=facts.tensor_count + len(file.tensors),
        tensor_prefixes=facts.tensor_prefixes | weights.prefixes,
        layer_bytes=tuple(map(sum, zip(facts.layer_bytes, weights.layer_bytes, strict=True))),
        other_bytes=facts.other_bytes + weights.other_bytes,
        input_bytes=facts.input_bytes + weights.input_bytes,
        embedding_bytes=facts.embedding_bytes + weights.embedding_bytes,
        has_output=facts.has_output or weights.has_output,
        largest_bytes=max(facts.largest_bytes, weights.largest_bytes),
        inline_projector_bytes=facts.inline_projector_bytes + weights.projector_bytes,
        tensor_bytes=facts.tensor_bytes + weights.total_bytes,
        size=facts.size + file.size,
    )
