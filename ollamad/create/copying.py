"""Writing a GGUF made from others into the store, in steps short enough to stop between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from ollamad.create.layers import PlannedLayer
from ollamad.gguf.reader import open_gguf
from ollamad.gguf.validate import validate
from ollamad.gguf.writer import merged, rewritten
from ollamad.store.blobs import BlobResult, BlobWriter, InUse
from ollamad.store.store import Store

#: Bytes that one step copies; a cancellation waits for so many at most.
STEP = 32 << 20


class Copying:
    """A new blob for a layer: its parts merged, or its file with the projector's type added.

    ``start``, ``advance`` until it says so, ``commit``; ``close`` in any case. All block.
    """

    def __init__(self, store: Store, in_use: InUse, layer: PlannedLayer) -> None:
        self._store = store
        self._in_use = in_use
        self._layer = layer
        self._open = ExitStack()
        self._blob: BlobWriter | None = None
        self._chunks: Iterator[bytes] = iter(())
        #: Bytes of the new file; 0 before the start.
        self.size = 0

    @property
    def written(self) -> int:
        """Bytes so far."""
        return self._blob.size if self._blob else 0

    def start(self) -> None:
        """Open and validate the sources. Raises OSError, GGUFError."""
        files = []
        for digest in self._layer.parts or (self._layer.digest,):
            file = self._open.enter_context(open_gguf(self._store.blob_path(digest), strict=True))
            validate(file)
            files.append(file)
        if self._layer.parts:
            output = merged(files)
        else:
            output = rewritten(files[0], add={"clip.projector_type": "mlp"})
        self.size = output.size
        self._chunks = output.chunks()
        self._blob = self._open.enter_context(self._store.new_blob(self._in_use))

    def advance(self) -> bool:
        """Copy some more; whether that was the last of it. Raises OSError, GGUFError."""
        assert self._blob is not None, "started"
        end = self._blob.size + STEP
        for chunk in self._chunks:
            self._blob.write(chunk)
            if self._blob.size >= end:
                return False
        return True

    def commit(self) -> BlobResult:
        assert self._blob is not None, "started"
        return self._blob.commit()

    def close(self) -> None:
        """Close the sources and remove what was not committed."""
        self._open.close()
