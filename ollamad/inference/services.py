"""What the services share: the parts of the daemon, and the checks that several of them make."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from ollamad.errors import (
    BadRequest,
    OllamadError,
    cannot,
    missing_capability,
    model_not_found_try_pulling,
    quoted,
)
from ollamad.gguf.errors import GGUFError
from ollamad.hardware.discovery import Hardware
from ollamad.hardware.machine import Machine
from ollamad.models.catalog import Catalog, KnownModel
from ollamad.prompting.media import is_webp, readable, readable_messages
from ollamad.registry.account import Account
from ollamad.registry.cloud import Cloud
from ollamad.registry.details import Details
from ollamad.registry.recommendations import Recommendations
from ollamad.registry.service import Registry
from ollamad.runners.process import Runner
from ollamad.scheduler.options import Defaults, Options, resolve, shifts_context
from ollamad.scheduler.shell import Scheduler
from ollamad.scheduler.spec import ModelSpec, may_run_parallel
from ollamad.settings import Settings
from ollamad.store.name_locks import NameLocks
from ollamad.timestamps import UtcClock
from ollamad.wire import Message, Think

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds that a request waits for the first look for GPUs; then it goes without them.
_DISCOVERY_PATIENCE = 60.0


@dataclass
class Services:
    """One of each, made by the daemon at start. ``defaults`` are known once devices are."""

    settings: Settings
    models: Catalog
    scheduler: Scheduler[Runner]
    defaults: Defaults
    registry: Registry
    cloud: Cloud
    cloud_details: Details
    account: Account
    recommendations: Recommendations
    machine: Machine
    clock: UtcClock = field(default_factory=UtcClock)
    name_locks: NameLocks = field(default_factory=NameLocks)

    async def hardware(self, limit: float) -> Hardware:
        """Devices with memory as it is now, or what is known after ``limit`` seconds."""
        with trio.move_on_after(limit):
            return await self.machine.reading()
        return self.machine.hardware

    async def prepare(
        self, model: KnownModel, options: Mapping[str, Any] | None, *, shift: bool | None = None
    ) -> tuple[ModelSpec, Options]:
        """What to ask the scheduler for, and the options of this request.

        Raises OllamadError (500) for an option of the wrong type, NotFound for weights that are
        gone. Waits until it is known which devices there are: the default context goes by them.
        """
        if not model.weight_paths:
            raise model_not_found_try_pulling(model.short_name)
        if not self.machine.is_known:
            await self.machine.known(_DISCOVERY_PATIENCE)
        resolved = resolve(
            model.stored.params, options, defaults=self.defaults, traits=model.traits
        )
        for key in resolved.ignored:
            log.warning("invalid option provided", extra={"option": key})
        spec = ModelSpec(
            key=model.key,
            name=model.short_name,
            digest=model.stored.digest,
            model_path=model.weight_paths[0],
            shards=model.weight_paths if len(model.weight_paths) > 1 else (),
            adapters=model.stored.adapter_paths,
            projectors=model.stored.projector_paths,
            draft=model.stored.draft_path,
            shape=model.shape,
            families=model.families,
            is_completion="embedding" not in model.capabilities,
            options=resolved.options.runner(),
            auto=resolved.auto,
            context_shift=shifts_context(shift, model.families),
            num_keep=resolved.options.num_keep,
            jinja=not model.is_rendered,
            parallel_allowed=may_run_parallel(
                "embedding" not in model.capabilities, model.families
            ),
            info=model,
        )
        return spec, resolved.options


def check_top_logprobs(top_logprobs: int) -> None:
    """http-api.md 8.7: before the model is even looked up."""
    if not 0 <= top_logprobs <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")


def check_thinking(model: KnownModel, requested: str, think: Think | None) -> Think | None:
    """``think`` in force (http-api.md 8.6): a model that can think does so unless told not to."""
    if "thinking" in model.capabilities:
        return True if think is None else think
    if think:
        raise BadRequest(f"{quoted(requested)} does not support thinking")
    return None


def check_template(model: KnownModel) -> None:
    """Raises OllamadError for a model whose stored template cannot be parsed.

    What else is wrong with a request shows only after that (http-api.md 9.2, 10.2: at lookup);
    what such a model is capable of is not known.
    """
    if model.template_error:
        raise OllamadError(model.template_error)


def check_runnable(model: KnownModel) -> None:
    """Raises OllamadError for a model that no present runner can run (http-api.md 6.4, first
    line)."""
    if "mllama" in model.families and model.stored.projector_paths:
        raise OllamadError(
            "'llama3.2-vision' is no longer compatible with your version of Ollama and has been "
            "replaced by a newer version. To re-download, run 'ollama pull llama3.2-vision'"
        )


def require(
    model: KnownModel, requested: str, verb: str, *, insert: bool = False, tools: bool = False
) -> None:
    """http-api.md 6.5: raises BadRequest for the capabilities that this request needs and lacks.

    Of weights that are gone no capability is known. Of weights that are damaged neither, but there
    is more to say: GGUFError (runners-and-scheduling.md 8.4). NotFound tells of missing shards.
    """
    if model.damage:
        raise GGUFError(model.damage)
    model.check_complete()
    if "completion" not in model.capabilities:
        raise cannot(requested, verb)
    wanted = {"insert": insert, "tools": tools}
    missing = [name for name, needed in wanted.items() if needed and name not in model.capabilities]
    if missing:
        raise missing_capability(model.name.full, missing)


async def readable_images(model: KnownModel, images: list[bytes]) -> list[bytes]:
    """Images and sounds as every runner reads them. Raises BadRequest for what nothing can read.

    Those for a model without eyes and ears are left as they are: its runner says that.
    """
    return await _readable(model, images, images, readable)


async def readable_conversation(model: KnownModel, messages: list[Message]) -> list[Message]:
    """The messages with their images as those of ``readable_images``."""
    images = [image for message in messages for image in message.images or ()]
    return await _readable(model, images, messages, readable_messages)


async def _readable(
    model: KnownModel, images: list[bytes], items: list[T], work: Callable[[list[T]], list[T]]
) -> list[T]:
    if not images or not {"vision", "audio"}.intersection(model.capabilities):
        return items
    if any(map(is_webp, images)):
        return await trio.to_thread.run_sync(work, items)  # converting one can take a second
    return work(items)
