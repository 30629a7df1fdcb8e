"""The rendered path to a prompt: made by the daemon, measured and cut to fit the context.

Source: prompting.md 1.5 to 1.7, 5.2; http-api.md 8.4.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from ollamad.errors import OllamadError
from ollamad.gotemplate.errors import TemplateSyntaxError
from ollamad.inference.run import cut_prompt
from ollamad.models.catalog import KnownModel
from ollamad.prompting.messages import IMAGE_TOKENS, Cut, image_count
from ollamad.prompting.prompter import Prompter
from ollamad.prompting.renderers.conversation import Renderer
from ollamad.prompting.renderers.registry import find_renderer, renderer_names
from ollamad.prompting.template import Template, parse_template
from ollamad.runners.process import Runner
from ollamad.scheduler.lease import Lease
from ollamad.scheduler.spec import ModelSpec
from ollamad.wire import Message, Think, Tool


def today() -> datetime.date:
    """The local date, which templates write."""
    return datetime.date.today()


def without_doubled_bos(model: KnownModel, prompt: str) -> str:
    """``prompt`` without the BOS that the tokenizer adds by itself (prompting.md 1.7)."""
    if not model.adds_bos:
        return prompt
    known = model.renderer in renderer_names()
    bos = renderer_of(model).leading_bos if known else ""
    return prompt[len(bos) :] if bos and prompt.startswith(bos) else prompt.removeprefix("<bos>")


def renderer_of(model: KnownModel) -> Renderer:
    """The model's named renderer. Raises OllamadError (500) for an unknown one."""
    return find_renderer(
        model.renderer,
        model_names=(model.short_name, model.name.full),
        parameter_size=model.stored.config.model_type,
    )


def prompter_of(model: KnownModel) -> Prompter:
    """What makes this model's prompts. Raises OllamadError (500) for an unknown renderer."""
    return Prompter(
        model.template,
        renderer_of(model) if model.renderer else None,
        single_image="mllama" in model.families,
        today=datetime.date.today(),
    )


def parsed(text: str) -> Template:
    """A request's own template. Raises OllamadError (500) with Go's text for a bad one."""
    try:
        return parse_template(text)
    except TemplateSyntaxError as error:
        raise OllamadError(str(error)) from error


async def fitted_rendered(
    lease: Lease[Runner],
    prompter: Prompter,
    model: KnownModel,
    messages: list[Message],
    *,
    tools: Sequence[Tool] | None,
    think: Think | None,
    truncate: bool | None,
) -> tuple[list[Message], int]:
    """The messages whose prompt fits the context, and how many tokens were dropped with the others.

    Oldest messages go first; system messages and the last message stay. ``truncate`` False keeps
    everything. A token has at least one byte, so a short prompt is not counted.
    """
    if truncate is False or len(messages) <= 1:
        return messages, 0
    image_cost = IMAGE_TOKENS if model.stored.projector_paths else 0

    async def length(candidate: list[Message]) -> int:
        text = prompter.measured(candidate, tools=tools, think=think)
        images = image_cost * image_count(candidate)
        if candidate is messages and len(text.encode()) + images <= lease.num_ctx:
            return images
        return len(await lease.runner.client.tokenize(text)) + images

    count = await length(messages)
    if count <= lease.num_ctx:
        return messages, 0
    cut = Cut(messages, lease.num_ctx)
    cut.measured(count)
    while not cut.done:
        cut.measured(await length(cut.candidate))
    return cut.kept, cut.dropped_tokens


@dataclass(frozen=True, slots=True)
class Cutting:
    """How a prompt is cut that is longer than the context (1.7)."""

    num_keep: int
    adds_bos: bool = False
    context_shift: bool = True
    truncate: bool | None = None


def cutting_of(model: KnownModel, spec: ModelSpec, truncate: bool | None) -> Cutting:
    """How this model's prompts are cut for a request."""
    return Cutting(spec.num_keep, model.adds_bos, spec.context_shift, truncate)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent: ``sent`` is ``text``, or its tokens when it had to be cut.

    ``media`` in the order of the ``[img-N]`` tags in the text; ``dropped``: tokens that are gone,
    ``cut`` of them from the middle of what was left.
    """

    text: str
    sent: str | list[int]
    cutting: Cutting
    media: Sequence[bytes] = ()
    dropped: int = 0
    cut: int = 0


async def ready_prompt(
    lease: Lease[Runner], text: str, media: Sequence[bytes], cutting: Cutting, *, dropped: int = 0
) -> Prompt:
    """``text`` as it can be sent; its middle is cut out if it is longer than the context (1.7).

    ``dropped``: tokens that are gone already. Raises BadRequest when it is too long and the context
    may not be shifted.
    """
    sent: str | list[int] = text
    cut = 0
    if cutting.truncate is not False and not media:
        sent, cut = await cut_prompt(
            lease,
            text,
            num_keep=cutting.num_keep,
            adds_bos=cutting.adds_bos,
            shift=cutting.context_shift,
        )
    return Prompt(text, sent, cutting, media, dropped + cut, cut)
