"""What becomes of a file: recipes of the files made from it (2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from ollamad.gguf.encoding import Writable
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.writer import Output, Tensor, fresh, rewritten


class FilePlan(Protocol):
    """A file to make. ``output`` refers to the file that the plan was made for: keep it open."""

    def output(self) -> Output:
        """The recipe of its bytes. Raises GGUFError."""
        ...


class TextPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A text model: the keys of ``base`` less ``drop``, with ``add``, some of them renamed.

    ``tensors`` has all of its tensors, in the order in which they are written.
    """

    base: GGUFFile
    drop: frozenset[str]
    add: Mapping[str, Writable]
    rename: Mapping[str, str]
    tensors: tuple[Tensor, ...]

    def output(self) -> Output:
        return rewritten(
            self.base, drop=self.drop, add=self.add, rename=self.rename, tensors=self.tensors
        )


class ProjectorPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A projector: a file of its own with these keys and tensors."""

    keys: Mapping[str, Writable]
    tensors: tuple[Tensor, ...]

    def output(self) -> Output:
        return fresh(self.keys, self.tensors)


class Plan(NamedTuple):
    """What to make of a file of the kind ``kind``. ``mmproj`` None: it has no eyes and ears."""

    kind: str
    text: TextPlan
    mmproj: ProjectorPlan | None


class Kind(NamedTuple):
    """One kind of file that llama.cpp cannot load as it is published (3).

    ``archs``: the architectures that its files have. ``matches`` must be false for what ``plan``
    makes. ``plan`` raises GGUFError for files of this kind of which nothing can be made.
    """

    name: str
    archs: frozenset[str]
    matches: Callable[[GGUFFile], bool]
    plan: Callable[[GGUFFile], Plan]
