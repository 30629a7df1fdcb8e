"""``POST /api/generate`` behind the wire (http-api.md 9, prompting.md 1.6)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from ollamad.errors import BadRequest, RunnerError
from ollamad.inference.answer import Answer
from ollamad.inference.calls import in_order
from ollamad.inference.parser_choice import ChosenParser, ParserChoice
from ollamad.inference.prompt import fitted, rendered
from ollamad.inference.remote import RemoteAnswer, remote_generate
from ollamad.inference.rendered import (
    Prompt,
    cutting_of,
    fitted_rendered,
    parsed,
    prompter_of,
    ready_prompt,
    today,
    without_doubled_bos,
)
from ollamad.inference.services import (
    Services,
    check_runnable,
    check_template,
    check_thinking,
    check_top_logprobs,
    readable_images,
    require,
)
from ollamad.models.catalog import KnownModel
from ollamad.parsing.stream import Final, Piece
from ollamad.prompting.messages import generate_conversation
from ollamad.runners.process import Runner
from ollamad.scheduler.lease import Lease, Waited
from ollamad.scheduler.options import Options
from ollamad.scheduler.spec import ModelSpec
from ollamad.wire import DebugInfo, GenerateRequest, GenerateResponse, Think, ToolCall

log = logging.getLogger(__name__)

Events = AsyncGenerator[list[GenerateResponse], None]


async def generate(
    services: Services, request: GenerateRequest, waited: Waited
) -> GenerateResponse | Events | RemoteAnswer:
    """One object (load, unload, debug), the events of an answer in batches, or those of a stub.

    The checks come in the contract's order (9.2). The first batch is empty: it says that the model
    is loaded and the prompt ready, so that an error before it is not one of the run. ``waited`` is
    filled when there is a runner. Raises OllamadError.
    """
    started = time.monotonic_ns()
    check_top_logprobs(request.top_logprobs)
    model = await services.models.find(request.model, when_empty="model '' not found")
    if model.is_remote:
        return await remote_generate(services, request, model)
    if not request.prompt and request.keep_alive == 0:
        services.scheduler.expire(model.key)
        return _single(services, request, "unload")
    check_template(model)
    if "image" in model.capabilities:
        raise BadRequest("image generation models are not currently supported")
    if request.raw and (request.template or request.system or request.context):
        raise BadRequest("raw mode does not support template, system, or context")
    think = check_thinking(model, request.model, request.think)
    check_runnable(model)
    require(model, request.model, "generate", insert=bool(request.suffix))
    spec, options = await services.prepare(model, request.options, shift=request.shift)
    if not request.prompt:
        async with services.scheduler.lease(
            spec, keep_alive=request.keep_alive, slot=False
        ) as lease:
            waited.for_lease(lease)
            return _single(services, request, "load")
    if "mllama" in model.families and len(request.images or []) > 1:
        raise BadRequest("this model only supports one image while more than one image requested")
    run = _Run(services, request, model, spec, options, think, started, waited)
    if request.debug_render_only:
        return await run.rendering()
    request.images = await readable_images(model, request.images or [])
    return run.events()


def _single(services: Services, request: GenerateRequest, reason: str) -> GenerateResponse:
    return GenerateResponse(
        model=request.model,
        created_at=services.clock.now(),
        response="",
        done=True,
        done_reason=reason,
    )


class _Run:
    """One generation, after all checks."""

    def __init__(
        self,
        services: Services,
        request: GenerateRequest,
        model: KnownModel,
        spec: ModelSpec,
        options: Options,
        think: Think | None,
        started: int,
        waited: Waited,
    ) -> None:
        self._services = services
        self._request = request
        self._model = model
        self._spec = spec
        self._options = options
        self._think = think
        self._started = started
        self._waited = waited

    async def rendering(self) -> GenerateResponse:
        """The prompt instead of an answer (9.6)."""
        async with self._services.scheduler.lease(
            self._spec, keep_alive=self._request.keep_alive
        ) as lease:
            self._waited.for_lease(lease)
            prompt, _ = await self._prompt(lease)
        return GenerateResponse(
            model=self._request.model,
            created_at=self._services.clock.now(),
            response="",
            done=False,
            debug_info=DebugInfo(rendered_template=prompt.text, image_count=len(prompt.media)),
        )

    async def events(self) -> Events:
        request, services = self._request, self._services
        async with services.scheduler.lease(self._spec, keep_alive=request.keep_alive) as lease:
            self._waited.for_lease(lease)
            loaded = time.monotonic_ns()
            prompt, parser = await self._prompt(lease)
            yield []
            answer = Answer.to(request, services.scheduler, lease, prompt, self._options, parser)
            calls: list[ToolCall] = []
            # The runner's slot must be free before the lease says so.
            async with aclosing(answer.pieces()) as batches:
                async for batch in batches:
                    if events := [self._event(p) for p in batch if _without_calls(p, calls)]:
                        yield events
            assert answer.final is not None
            context = None
            if not request.raw:
                context = await lease.runner.client.tokenize(prompt.text + answer.raw)
            yield [self._last(answer.final, context, calls, answer.dropped, loaded)]

    async def _prompt(self, lease: Lease[Runner]) -> tuple[Prompt, ChosenParser]:
        request, model = self._request, self._model
        choice = ParserChoice(model, self._think, named=not request.raw)
        text, media, dropped = await self._text(lease, choice.think)
        if request.context is not None and not request.raw:
            text = await lease.runner.client.detokenize(request.context) + text
        text = without_doubled_bos(model, text)
        prompt = await ready_prompt(
            lease,
            text,
            media,
            cutting_of(model, self._spec, request.truncate),
            dropped=dropped,
        )
        if prompt.dropped:
            log.warning(
                "prompt cut to fit the context",
                extra={
                    "model": model.short_name,
                    "dropped": prompt.dropped,
                    "num_ctx": lease.num_ctx,
                },
            )
        return prompt, choice.parser(text)

    async def _text(
        self, lease: Lease[Runner], think: Think | None
    ) -> tuple[str, Sequence[bytes], int]:
        """The prompt's text, its media, and how many tokens were dropped (prompting.md 1.6)."""
        request, model = self._request, self._model
        if request.raw:
            return request.prompt, request.images or (), 0
        template = parsed(request.template) if request.template else model.template
        if request.suffix:
            return (
                template.render_infill(request.prompt, request.suffix, think=think, today=today()),
                (),
                0,
            )
        conversation = generate_conversation(
            request.prompt,
            images=request.images,
            system=request.system or model.system,
            stored=model.messages,
            has_context=request.context is not None,
        )
        if request.template:
            text = template.render(conversation, tools=[], think=think, today=today())
            return text, request.images or (), 0
        if not model.is_rendered and model.chat_template:
            conversation, dropped = await fitted(
                lease, model, conversation, think=think, truncate=request.truncate
            )
            text, media = await rendered(lease, conversation, think=think)
            return text, media, dropped
        prompter = prompter_of(model)
        conversation, dropped = await fitted_rendered(
            lease,
            prompter,
            model,
            conversation,
            tools=[],
            think=think,
            truncate=request.truncate,
        )
        text, media = prompter.prompt(conversation, tools=[], think=think)
        return text, media, dropped

    def _event(self, piece: Piece) -> GenerateResponse:
        return GenerateResponse(
            model=self._request.model,
            created_at=self._services.clock.now(),
            response=piece.content,
            thinking=piece.thinking,
            done=False,
            logprobs=piece.logprobs,
        )

    def _last(
        self,
        final: Final,
        context: list[int] | None,
        calls: list[ToolCall],
        dropped: int,
        loaded: int,
    ) -> GenerateResponse:
        return GenerateResponse(
            model=self._request.model,
            created_at=self._services.clock.now(),
            response="",
            done=True,
            done_reason=final.done_reason,
            context=context or None,
            total_duration=time.monotonic_ns() - self._started,
            load_duration=loaded - self._started,
            prompt_eval_count=final.prompt_eval_count,
            prompt_eval_duration=final.prompt_eval_duration,
            eval_count=final.eval_count,
            eval_duration=final.eval_duration,
            tool_calls=in_order(calls) or None,
            prompt_truncated=dropped,
        )


def _without_calls(piece: Piece, calls: list[ToolCall]) -> bool:
    """Moves the calls of ``piece`` to ``calls``, for the final event shows all of them, and without
    ids (8.8, 9.4). False when nothing is left of the piece."""
    for call in piece.tool_calls or ():
        call.id = ""
        calls.append(call)
    piece.tool_calls = None
    return bool(piece.content or piece.thinking or piece.logprobs)


def whole(events: list[GenerateResponse]) -> GenerateResponse:
    """All events of an answer as one object, for ``stream: false`` (http-api.md 7.6).

    Raises RunnerError for an answer without any event.
    """
    if not events:
        raise RunnerError("an error was encountered while running the model: unexpected EOF")
    last = events[-1]
    last.response = "".join(e.response for e in events)
    last.thinking = "".join(e.thinking for e in events)
    last.logprobs = [entry for e in events for entry in e.logprobs or []] or None
    return last
