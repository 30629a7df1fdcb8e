"""The files that a stored model's weights are in: one, or the shards of a split GGUF.

Of several model layers the last one counts (registry-and-store 2.5), unless they are shards of one
model: those count together. Blocks on the disk; headers are read once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ollamad.gguf.errors import GGUFError
from ollamad.gguf.facts import Facts, cached_facts
from ollamad.gguf.shards import MAX_SHARDS, Shards, arrange, cached_shards

log = logging.getLogger(__name__)

#: How many missing shards an error names.
_MOST_NAMED = 8


class Weights(NamedTuple):
    """``paths``: in the order of the shards; none without weights. ``facts``: of all of them
    together, None when they are gone or unreadable. ``damage``: what is wrong with a file that
    cannot be read, "" when it is gone. ``incomplete``: says which shards are missing, "" for none.
    """

    paths: tuple[Path, ...] = ()
    facts: Facts | None = None
    damage: str = ""
    incomplete: str = ""


def read_weights(layers: Sequence[Path], model: str) -> Weights:
    """``layers``: the files of the model layers in the manifest's order; ``model``: for texts.

    Never raises: what is wrong is told once in the log and in what is returned.
    """
    if not layers:
        return Weights()
    # The same blob twice is one file, and the last one has to stay the last.
    paths = tuple(dict.fromkeys(reversed(layers)))[::-1]
    if 1 < len(paths) <= MAX_SHARDS:
        found = [read_or_complain(path, model) for path in paths]
        shards = arrange([facts for facts, _ in found])
        if shards is not None:
            return _together(model, paths, found, shards)
    if len(paths) > 1:
        _complain_of_layers(model, len(paths))
    facts, damage = read_or_complain(paths[-1], model)
    if facts is not None and facts.split_count > 1:
        shards = arrange([facts])
        if shards is not None:
            return _together(model, paths[-1:], [(facts, damage)], shards)
    return Weights(paths[-1:], facts, damage)


def read_or_complain(path: Path, model: str) -> tuple[Facts | None, str]:
    """The facts of one file, or None and what is wrong with it: "" for a file that is gone."""
    return _read(lambda: cached_facts(path), model)


def _together(
    model: str, paths: Sequence[Path], found: Sequence[tuple[Facts | None, str]], shards: Shards
) -> Weights:
    ordered = tuple(paths[index] for index in shards.order)
    damage = next((text for _, text in found if text), "")
    if damage:
        return Weights(ordered, None, f"a shard of the model is damaged: {damage}")
    if shards.missing:
        # The first one alone still tells lists what the model is.
        first = None if 0 in shards.missing else found[shards.order[0]][0]
        return Weights(ordered, first, "", incomplete_text(model, shards))
    facts, damage = _read(lambda: cached_shards(ordered), model)
    return Weights(ordered, facts, damage)


def incomplete_text(name: str, shards: Shards) -> str:
    """The error of a model that lacks shards; people count them from 1, as file names do."""
    numbers = [str(number + 1) for number in shards.missing]
    if len(numbers) > _MOST_NAMED:
        numbers = [*numbers[:_MOST_NAMED], f"{len(numbers) - _MOST_NAMED} more"]
    if len(numbers) == 1:
        which = f"shard {numbers[0]} of {shards.count} is"
    else:
        which = f"shards {', '.join(numbers[:-1])} and {numbers[-1]} of {shards.count} are"
    return f"model '{name}' is incomplete: {which} missing, try `ollama pull {name}`"


def _read(read: Callable[[], Facts], model: str) -> tuple[Facts | None, str]:
    try:
        return read(), ""
    except (OSError, GGUFError) as error:
        _complain(model, str(error))
        return None, "" if isinstance(error, FileNotFoundError) else str(error)


@lru_cache(maxsize=256)
def _complain(model: str, error: str) -> None:
    """Once: programs ask for the list every few seconds."""
    log.warning("a file of a model cannot be read", extra={"model": model, "error": error})


@lru_cache(maxsize=256)
def _complain_of_layers(model: str, count: int) -> None:
    log.warning(
        "the layers of weights are not the shards of one model: the last one counts",
        extra={"model": model, "layers": count},
    )
