"""Names to models: what a client asks for, found in the store, with the facts of its files.

Source: http-api.md 4 (references and their errors), 12.1 (listing). The disk is read in worker
threads; a model is read once while its manifest stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio

from ollamad.errors import (
    BadRequest,
    NotFound,
    model_not_found,
    model_not_found_try_pulling,
    quoted,
)
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.facts import Facts
from ollamad.gotemplate.errors import TemplateSyntaxError
from ollamad.modelfile.format import DEFAULT_TEMPLATE
from ollamad.models.capabilities import capabilities
from ollamad.models.shape import shape_of
from ollamad.models.template_choice import Choice, choose
from ollamad.models.weights import read_or_complain, read_weights
from ollamad.prompting.template import Template, parse_template
from ollamad.scheduler.options import Traits
from ollamad.scheduler.spec import ModelShape, model_key
from ollamad.settings import Settings
from ollamad.store.model import Model, Models
from ollamad.store.names import Name, Reference, parse_reference
from ollamad.store.store import Store
from ollamad.wire import Message

#: How long a loaded model is served without a look at the disk, and how many are. A look is a trip
#: to a worker thread: a third of what the daemon adds to the time to a first token.
_RECENT_S = 1.0
_RECENT_MODELS = 64


@dataclass(frozen=True, slots=True, eq=False)
class KnownModel:
    """A stored model with what its files say.

    ``facts`` is None when the weights are gone or unreadable; ``damage`` tells what is wrong with
    them, "" when they are gone; ``incomplete`` tells which shards of a split model are gone.
    ``weight_paths``: the files of the weights, shards in their order. ``adapter_bytes`` and
    ``draft_bytes``: of these files, as far as they are there. ``draft``: the draft's facts, None
    without one that can be read. ``template``: the stored Go template, the
    default if there is none or if it cannot be parsed; then ``template_error`` says why.
    ``choice``: what makes its prompts.
    """

    stored: Model
    facts: Facts | None
    projectors: tuple[Facts, ...]
    adapter_bytes: int
    draft_bytes: int
    draft: Facts | None
    capabilities: tuple[str, ...]
    template: Template
    choice: Choice
    template_error: str = ""
    damage: str = ""
    incomplete: str = ""
    weight_paths: tuple[Path, ...] = ()

    @property
    def name(self) -> Name:
        return self.stored.name

    @property
    def short_name(self) -> str:
        return self.stored.short_name

    @property
    def key(self) -> str:
        """What identifies it among loaded models."""
        return model_key(
            self.weight_paths,
            manifest_digest=self.stored.digest,
            name=self.stored.name.full,
        )

    @property
    def system(self) -> str:
        return self.stored.system

    @property
    def messages(self) -> tuple[Message, ...]:
        return self.stored.messages

    @property
    def is_remote(self) -> bool:
        """Whether it is a stub: another server has the weights and runs it."""
        return self.stored.config.is_remote

    @property
    def family(self) -> str:
        return self.stored.config.model_family

    @property
    def families(self) -> tuple[str, ...]:
        config = self.stored.config
        return tuple(dict.fromkeys([config.model_family, *(config.model_families or ())]))

    @property
    def chat_template(self) -> str:
        """The template inside the weights, ``""`` for none."""
        return "" if self.facts is None else self.facts.chat_template

    @property
    def template_text(self) -> str:
        """The stored Go template as it was written, or the default."""
        return DEFAULT_TEMPLATE if self.stored.template is None else self.stored.template

    @property
    def template_in_use(self) -> str:
        """What ``show`` reports: the template inside the weights if that is applied, else ours."""
        return self.chat_template if self.choice.uses_chat_template else self.template_text

    @property
    def renderer(self) -> str:
        """The name of the renderer that makes its prompts, ``""`` for its template."""
        return self.stored.config.renderer

    @property
    def parser(self) -> str:
        """The name of the parser of its answers; unknown names are as good as ``""``."""
        return self.stored.config.parser or ("harmony" if self.uses_harmony else "")

    @property
    def uses_harmony(self) -> bool:
        """Whether it is a gpt-oss whose template writes the harmony format (prompting.md 1.1)."""
        return self.choice.uses_harmony

    @property
    def is_rendered(self) -> bool:
        """Whether its prompts are made here, not by llama.cpp from messages (prompting.md 1.4)."""
        return self.choice.is_rendered

    @property
    def prompt_source(self) -> str:
        """For the log: what makes its prompts."""
        return self.choice.source

    @property
    def adds_bos(self) -> bool:
        """Whether the tokenizer puts a BOS in front by itself (runners-and-scheduling 3.5)."""
        facts = self.facts
        return facts is not None and (
            facts.tokenizer_pre in ("lfm2", "gemma4")
            or facts.tokenizer_model == "gemma4"
            or facts.add_bos_token is True
        )

    @property
    def special_tokens_of_input(self) -> int:
        """Tokens that the runner adds to a text that it embeds: BOS, EOS, or both."""
        facts = self.facts
        if facts is None:
            return 0
        return sum(
            token is not None and added is not False
            for token, added in (
                (facts.bos_token_id, facts.add_bos_token),
                (facts.eos_token_id, facts.add_eos_token),
            )
        )

    @property
    def raw_embeddings(self) -> bool:
        return self.facts is not None and self.facts.has_raw_legacy_embeddings

    @property
    def traits(self) -> Traits:
        """What the options depend on."""
        facts = self.facts
        return Traits(
            train_context=0 if facts is None else facts.train_context,
            embedding="embedding" in self.capabilities,
            vision="vision" in self.capabilities,
            draft_file=self.stored.draft_path is not None,
        )

    def check_complete(self) -> None:
        """Raises NotFound for a split model of which shards are missing: a pull may bring them."""
        if self.incomplete:
            raise NotFound(self.incomplete)

    @property
    def shape(self) -> ModelShape:
        """What memory depends on. Raises NotFound when weights are gone, all or some."""
        self.check_complete()
        facts = self.facts
        if facts is None:
            raise model_not_found_try_pulling(self.short_name)
        shape = shape_of(facts)
        projector_bytes = sum(projector.size for projector in self.projectors)
        if not projector_bytes and facts.has_inline_projector:
            projector_bytes = facts.inline_projector_bytes
        return msgspec.structs.replace(
            shape,
            projector_bytes=projector_bytes,
            adapter_bytes=self.adapter_bytes,
            draft_bytes=self.draft_bytes,
            draft=None if self.draft is None else shape_of(self.draft),
        )


class _Recent(NamedTuple):
    """A model as it was at ``read_at`` (trio's clock), after ``changes`` of the store."""

    model: KnownModel
    changes: int
    read_at: float


class Catalog:
    """Finds models by the names that clients use.

    ``is_loaded`` tells of a model's ``key`` whether a runner has its files open.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        is_loaded: Callable[[str], bool] = lambda _key: False,
    ) -> None:
        self.store = store
        self._settings = settings
        self._is_loaded = is_loaded
        self._models = Models(store)
        self._recent: dict[tuple[Name, bool], _Recent] = {}

    def name_of(
        self, requested: str, *, when_empty: str = "model is required"
    ) -> tuple[Name, Reference]:
        """The name of the stored model that a client's text means (http-api.md 4).

        Raises NotFound or BadRequest for a blank text, BadRequest for two source suffixes, for what
        is no name, and for a model of the cloud, which is not in the store.
        """
        name, reference = self._parsed(requested, when_empty)
        if reference.source == "cloud":
            raise BadRequest(f"{quoted(requested)} is a model of the cloud")
        return name, reference

    def cloud_model(self, requested: str, *, when_empty: str = "model is required") -> str | None:
        """What the cloud calls the model that is asked for; None for one that is to be looked up.

        Raises as ``name_of``.
        """
        _, reference = self._parsed(requested, when_empty)
        return reference.base if reference.source == "cloud" else None

    def _parsed(self, requested: str, when_empty: str) -> tuple[Name, Reference]:
        if not requested.strip():
            if when_empty.endswith("not found"):
                raise NotFound(when_empty)
            raise BadRequest(when_empty)
        reference = parse_reference(requested)
        name = Name.parse(reference.base)
        if not name.is_valid:
            raise BadRequest("invalid model name")
        return name, reference

    async def find(self, requested: str, *, when_empty: str = "model is required") -> KnownModel:
        """The model or stub of a generate or chat request. Raises as ``name_of``, and NotFound."""
        name, reference = self.name_of(requested, when_empty=when_empty)
        model = await self.read(name)
        if model is None or (reference.source == "local" and model.stored.config.is_remote):
            raise model_not_found(requested)
        return model

    async def find_weights(
        self, requested: str, *, when_empty: str = "model is required", exact: bool = False
    ) -> KnownModel:
        """The model of an embedding request: a stub, or one whose weights are gone, is missing.

        Raises GGUFError, too, for weights that are damaged; those with missing shards are missing.
        """
        name, _ = self.name_of(requested, when_empty=when_empty)
        model = await self.read(name, exact=exact)
        if model is not None and model.damage:
            raise GGUFError(model.damage)
        if model is not None:
            model.check_complete()
        if model is None or model.facts is None:
            raise model_not_found_try_pulling(requested)
        return model

    async def read(self, name: Name, *, exact: bool = False) -> KnownModel | None:
        """The stored model of that name, in whatever spelling it is stored; None without one.

        What another program does to a loaded model is seen a second later at most.
        """
        changes = self.store.changes
        recent = self._recent.get((name, exact))
        if (
            recent is not None
            and recent.changes == changes
            and trio.current_time() - recent.read_at < _RECENT_S
            and self._is_loaded(recent.model.key)
        ):
            return recent.model
        started = trio.current_time()
        model = await trio.to_thread.run_sync(partial(self.read_sync, name, exact=exact))
        self._recent.pop((name, exact), None)
        if model is not None:
            if len(self._recent) >= _RECENT_MODELS:
                self._recent.clear()
            self._recent[name, exact] = _Recent(model, changes, started)
        return model

    def read_sync(self, name: Name, *, exact: bool = False) -> KnownModel | None:
        try:
            model = self._models.load(name if exact else self.store.resolve(name))
        except FileNotFoundError:
            return None
        return known(model, go_template=self._settings.go_template)

    def list_sync(self) -> list[KnownModel]:
        """All models that can be read, the latest change first (12.1)."""
        switch = self._settings.go_template
        return sorted(
            (known(model, go_template=switch) for model in self._models.all()),
            key=lambda m: (-(m.stored.modified_at_ns // 10**9), m.short_name),
        )


def known(model: Model, *, go_template: bool | None = None) -> KnownModel:
    """``model`` with the facts of its files, as far as they can be read.

    ``go_template``: the switch ``OLLAMA_GO_TEMPLATE``, None when it is not set.
    """
    weights = read_weights(model.model_paths, model.short_name)
    facts = weights.facts
    projectors = tuple(
        found
        for path in model.projector_paths
        if (found := read_or_complain(path, model.short_name)[0]) is not None
    )
    draft_path = model.draft_path
    draft = None if draft_path is None else read_or_complain(draft_path, model.short_name)[0]
    template, template_error = _template(model)
    has_layer = model.template is not None
    choice = choose(
        model.config, facts, projectors, template, has_layer=has_layer, switch=go_template
    )
    return KnownModel(
        stored=model,
        facts=facts,
        projectors=projectors,
        adapter_bytes=sum(map(_size, model.adapter_paths)),
        draft_bytes=0 if draft_path is None else _size(draft_path),
        draft=draft,
        capabilities=capabilities(
            model.config,
            facts,
            projectors,
            template=template if choice.uses_go_template else None,
            chat_template=choice.uses_chat_template,
        ),
        template=template,
        choice=choice,
        template_error=template_error,
        damage=weights.damage,
        incomplete=weights.incomplete,
        weight_paths=weights.paths,
    )


def _template(model: Model) -> tuple[Template, str]:
    """The parsed template of a model, and what is wrong with its text if it had to be replaced."""
    if model.template is None:
        return parse_template(DEFAULT_TEMPLATE), ""
    try:
        return parse_template(model.template), ""
    except TemplateSyntaxError as error:
        return parse_template(DEFAULT_TEMPLATE), str(error)


def _size(path: Path) -> int:
    """Bytes of a file, 0 when it is gone: then the runner says so."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
