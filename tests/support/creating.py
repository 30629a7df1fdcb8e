"""Creates that are run to their end against a real store, and the small GGUFs that they use."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from ollamad.create.apply import create_events
from ollamad.errors import OllamadError
from ollamad.gguf.writer import Tensor, fresh
from ollamad.store.manifest import Manifest
from ollamad.store.name_locks import NameLocks
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import CreateRequest, Progress


def gguf(arch: str = "llama", tensors: dict[str, int] | None = None, **keys: Any) -> bytes:
    """A GGUF with F32 tensors of these element counts; ``__`` in a key's name stands for a dot."""
    metadata = {"general.architecture": arch}
    metadata |= {name.replace("__", "."): value for name, value in keys.items()}
    output = fresh(
        metadata,
        [
            Tensor(name, 0, (count,), bytes(4 * count))
            for name, count in (tensors if tensors is not None else {"w": 13}).items()
        ],
    )
    return b"".join(output.chunks())


#: The file of the contract's cases: llama, F16, 13 elements.
G = gguf(general__file_type=1)

CONFIG_OF_G = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],'
    b'"model_type":"13","file_type":"F16","architecture":"amd64","os":"linux"}\n'
)

VALIDATING = "validating GGUF model"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class Creator:
    """Runs creates against one store."""

    store: Store
    locks: NameLocks = field(default_factory=NameLocks)
    options: dict[str, Any] = field(default_factory=dict)

    def upload(self, content: bytes) -> str:
        with self.store.new_blob() as blob:
            blob.write(content)
            return blob.commit().digest

    async def events(self, **request: Any) -> list[Progress]:
        decoded = msgspec.convert(request, CreateRequest)
        async with aclosing(
            create_events(self.store, decoded, locks=self.locks, **self.options)
        ) as events:
            return [event async for event in events]

    async def statuses(self, **request: Any) -> list[str]:
        """The statuses with digests cut off: ``U`` for an existing, ``N`` for a new layer."""
        short = {"using existing layer": "U", "creating new layer": "N"}
        found = []
        for event in await self.events(**request):
            verb, _, digest = event.status.rpartition(" ")
            found.append(short[verb] if digest.startswith("sha256:") else event.status)
        return found

    async def failure(self, **request: Any) -> tuple[int, str]:
        """Status and text of the error that the request ends in."""
        with pytest.raises(OllamadError) as caught:
            await self.events(**request)
        return caught.value.status, caught.value.message

    def manifest(self, name: str) -> Manifest:
        return self.store.read_manifest(Name.parse(name)).manifest

    def layers(self, name: str) -> list[tuple[str, bytes, str]]:
        """Type without its prefix, content, origin."""
        return [
            (layer.media_type.rpartition(".")[2], self.blob(layer.digest), layer.from_)
            for layer in self.manifest(name).layers
        ]

    def texts(self, name: str) -> list[tuple[str, bytes]]:
        """The small layers."""
        big = {"model", "projector", "adapter", "draft"}
        return [(kind, content) for kind, content, _ in self.layers(name) if kind not in big]

    def blob(self, digest: str) -> bytes:
        return self.store.blob_path(digest).read_bytes()

    def config(self, name: str) -> bytes:
        return self.blob(self.manifest(name).config.digest)

    def blobs(self) -> set[str]:
        return {path.name for path in (self.store.root / "blobs").iterdir()}
