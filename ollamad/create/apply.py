"""Create, carried out: the stages of modelfile-and-create 4.1 in order, and their events.

What decides is elsewhere and pure, what touches the disk is in ``disk``; this shell calls the one,
runs the other in worker threads, and yields the events between. Cancelled at any point it leaves
the target as it was, no temporary file and no lock; blobs without a manifest wait for a prune.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import trio

from ollamad.create.checks import check_request
from ollamad.create.config import new_config, takes_defaults
from ollamad.create.copying import Copying
from ollamad.create.detection import check_template, detect_template
from ollamad.create.disk import CreateDisk
from ollamad.create.info import Info, parse_info
from ollamad.create.kinds import gguf_names, kind_of_files
from ollamad.create.layers import (
    PlannedLayer,
    Role,
    Weights,
    detected_layers,
    imported_layers,
    reports_validation,
    rewrite_of,
)
from ollamad.create.origin import Files, Origin, RemoteBase, StoredBase, origin_of
from ollamad.create.space import check_space
from ollamad.create.texts import licenses_of, merged_parameters, new_texts, with_texts
from ollamad.errors import BadRequest, OllamadError
from ollamad.modelfile.semver import is_newer
from ollamad.store.config import EMPTY_CONFIG, ConfigBlob
from ollamad.store.manifest import MEDIA_DRAFT, MEDIA_MODEL, Manifest
from ollamad.store.name_locks import NameLocks
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.store.threads import in_thread
from ollamad.version import API_VERSION
from ollamad.wire import CreateRequest, Progress

logger = logging.getLogger(__name__)

#: Fetches a model into the store; its events, ``success`` included, become create's.
Pull = Callable[[Name], AsyncGenerator[Progress, None]]

#: In events about a file that has no digest yet.
_NO_DIGEST = "0" * 19


async def create_events(
    store: Store,
    request: CreateRequest,
    *,
    locks: NameLocks,
    pull: Pull | None = None,
) -> AsyncGenerator[Progress, None]:
    """Create the model that ``request`` describes; yields progress, last ``success``.

    Raises OllamadError; before the first event its status is that of the answer. Creates of one
    name with the same ``locks`` come one after the other. Whoever may stop early closes the
    generator (``aclosing``).
    """
    target = check_request(request)
    origin = origin_of(request)
    if isinstance(origin, StoredBase):
        # Before the lock is taken: pulling a model takes the lock of its own name.
        async with aclosing(_pulled(CreateDisk(store), origin.name, pull)) as events:
            async for event in events:
                yield event
    async with locks.hold(target):
        creation = _Creation(CreateDisk(store), request)
        try:
            async with aclosing(creation.run(target, origin)) as events:
                async for event in events:
                    yield event
        finally:
            # In a thread because it may remove what another create had to leave to us.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(creation.disk.in_use.close)


async def _pulled(
    disk: CreateDisk, name: Name, pull: Pull | None
) -> AsyncGenerator[Progress, None]:
    """See that the base is stored."""
    if await in_thread(disk.find, name) is not None:
        return
    if pull is None:
        raise OllamadError(
            f"model '{name.short}' not found, and pulling models is not available yet"
        )
    async with aclosing(pull(name)) as events:
        async for event in events:
            yield event


@dataclass(slots=True)
class _Creation:
    """One create under way and what it has collected."""

    disk: CreateDisk
    request: CreateRequest
    base_config: ConfigBlob = EMPTY_CONFIG
    layers: list[PlannedLayer] = field(default_factory=list)

    async def run(self, target: Name, origin: Origin) -> AsyncGenerator[Progress, None]:
        disk, request = self.disk, self.request
        target = await in_thread(disk.store.resolve, target)
        old = await in_thread(disk.read_old, target)
        async with aclosing(self._collect(origin)) as events:
            async for event in events:
                yield event
        # All that can be wrong with the small things comes before hours of rewriting.
        info = parse_info(request.info)
        if request.template:
            check_template(request.template)
        licenses = licenses_of(request.license)
        async with aclosing(self._rewrite_layers()) as events:
            async for event in events:
                yield event
        remote = origin if isinstance(origin, RemoteBase) else None
        manifest = await self._store_texts(info, licenses, remote)
        for layer in self.layers:
            yield Progress(status=layer.status)
        yield Progress(status="writing manifest")
        await in_thread(disk.finish, target, manifest, old)
        if is_newer(request.requires, API_VERSION):
            logger.warning("model requires %s model=%s", request.requires, target)
        yield Progress(status="success")

    # --- stages 3 to 7 ------------------------------------------------------------------------

    async def _collect(self, origin: Origin) -> AsyncGenerator[Progress, None]:
        """Fill ``layers``: those of the base, of adapters, of drafts. Drafts are read first."""
        request, disk = self.request, self.disk
        if isinstance(origin, RemoteBase):
            if request.draft_files:
                raise BadRequest("DRAFT cannot be used with remote models")
            return
        uploads = [request.adapters, request.draft_files]
        if isinstance(origin, Files):
            uploads.append(origin.digests)
        await in_thread(disk.use_uploads, uploads)
        base: list[PlannedLayer] = []
        drafts: list[PlannedLayer] = []
        if isinstance(origin, StoredBase):
            base, self.base_config = await in_thread(disk.inherit, origin.name)
        else:
            async with aclosing(self._import(origin.digests, "model", base)) as events:
                async for event in events:
                    yield event
        try:
            if request.draft_files is not None:
                async with aclosing(self._import(request.draft_files, "draft", drafts)) as events:
                    async for event in events:
                        yield event
            if request.adapters is not None:
                async with aclosing(self._import(request.adapters, "adapter", base)) as events:
                    async for event in events:
                        yield event
        except OllamadError as error:
            raise BadRequest(error.message) from error
        self.layers = base + drafts

    async def _import(
        self, files: Mapping[str, str], role: Role, into: list[PlannedLayer]
    ) -> AsyncGenerator[Progress, None]:
        """Append the layers of uploaded files to ``into``; adapters go after their base (4.3)."""
        kind = await in_thread(kind_of_files, files, self.disk.head)
        if kind == "safetensors":
            if role == "adapter" and not _weights_of(into, MEDIA_MODEL):
                raise BadRequest("no base model was found")
            raise BadRequest("importing safetensors is not available yet: convert to GGUF first")
        names = gguf_names(files)
        if role == "adapter" and len(names) > 1:
            raise BadRequest("only one adapter is currently supported")
        imported = []
        for name in names:
            yield Progress(status="parsing GGUF")
            imported.append(await in_thread(self.disk.read_upload, name, files[name], role))
        layers = imported_layers(imported, role)
        into += layers
        if role != "draft":
            into += detected_layers(layers, detect_template)

    # --- stage 9 ------------------------------------------------------------------------------

    async def _rewrite_layers(self) -> AsyncGenerator[Progress, None]:
        """Every GGUF becomes what a runner can load, or is refused."""
        request = self.request
        quantize = request.quantize or request.quantization
        planned = [
            (index, layer, rewrite_of(layer, quantize, request.draft_quantize))
            for index, layer in enumerate(self.layers)
        ]
        rewritten = [layer for _, layer, rewrite in planned if rewrite in ("merge", "projector")]
        if rewritten:
            needed = await in_thread(self.disk.size_of, rewritten)
            await in_thread(check_space, self.disk.store.root, needed)
        for index, layer, rewrite in planned:
            if rewrite == "validate":
                await in_thread(self.disk.validate, layer)
                if reports_validation(layer):
                    yield _validating(layer.size, layer.size)
            elif rewrite == "projector":
                yield Progress(status="updating GGUF projector metadata")
            if rewrite in ("merge", "projector"):
                async with aclosing(self._rewrite(index, layer)) as events:
                    async for event in events:
                        yield event

    async def _rewrite(self, index: int, layer: PlannedLayer) -> AsyncGenerator[Progress, None]:
        """Replace a layer by a new blob; merging, which may take long, reports its progress."""
        copying = Copying(self.disk.store, self.disk.in_use, layer)
        try:
            await in_thread(copying.start)
            done = False
            while not done:
                done = await in_thread(copying.advance)
                if layer.parts:
                    yield _validating(copying.size, copying.written)
            result = await in_thread(copying.commit)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(copying.close)
        self.layers[index] = replace(
            layer,
            digest=result.digest,
            size=result.size,
            status=result.status,
            from_="",
            parts=(),
        )

    # --- stages 10 and 11 ---------------------------------------------------------------------

    async def _store_texts(
        self, info: Info, licenses: Sequence[str], remote: RemoteBase | None
    ) -> Manifest:
        request = self.request
        models = _weights_of(self.layers, MEDIA_MODEL)
        drafts = _weights_of(self.layers, MEDIA_DRAFT)
        parameters = merged_parameters(
            request.parameters,
            await in_thread(self.disk.stored_parameters, self.layers),
            takes_defaults(request, self.base_config, models),
        )
        config = new_config(
            request,
            info,
            base=self.base_config,
            remote=remote,
            models=models,
            draft=drafts[-1] if drafts else None,
        )
        layers = with_texts(self.layers, new_texts(request, parameters, licenses))
        self.layers, manifest = await in_thread(self.disk.store_texts, layers, config)
        return manifest


def _weights_of(layers: Sequence[PlannedLayer], media_type: str) -> list[Weights]:
    return [
        layer.weights
        for layer in layers
        if layer.media_type == media_type and layer.weights is not None
    ]


def _validating(total: int, completed: int) -> Progress:
    return Progress(
        status="validating GGUF model", digest=_NO_DIGEST, total=total, completed=completed
    )
