"""``POST /api/generate`` behind the wire (http-api.md 9, prompting.md 1.6)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from ollamad.errors import BadRequest, OllamadError, RunnerError
from ollamad.inference.prompt import check_format, check_template, fitted, rendered, tagged
from ollamad.inference.run import cut_prompt, pieces
from ollamad.inference.services import (
    Services,
    check_runnable,
    check_thinking,
    check_top_logprobs,
    require,
)
from ollamad.models.catalog import KnownModel
from ollamad.parsing.stream import CompletionStream, Final, Piece
from ollamad.prompting.messages import generate_conversation
from ollamad.prompting.requests import checked_format, completion_body
from ollamad.runners.process import Runner
from ollamad.scheduler.lease import Lease
from ollamad.scheduler.options import Options
from ollamad.scheduler.spec import ModelSpec
from ollamad.wire import DebugInfo, GenerateRequest, GenerateResponse, Think

log = logging.getLogger(__name__)

Events = AsyncGenerator[list[GenerateResponse], None]


async def generate(services: Services, request: GenerateRequest) -> GenerateResponse | Events:
    """One object (load, unload, debug), or the events of an answer in batches.

    The checks come in the contract's order (9.2). The first batch is empty: it says that the model
    is loaded and the prompt ready, so that an error before it is not one of the run. Raises
    OllamadError.
    """
    started = time.monotonic_ns()
    check_top_logprobs(request.top_logprobs)
    model = await services.models.find(request.model, when_empty="model '' not found")
    services.models.refuse_stub(model)
    if not request.prompt and request.keep_alive == 0:
        services.scheduler.expire(model.key)
        return _single(services, request, "unload")
    if "image" in model.capabilities:
        raise BadRequest("image generation models are not currently supported")
    if request.raw and (request.template or request.system or request.context):
        raise BadRequest("raw mode does not support template, system, or context")
    think = check_thinking(model, request.model, request.think)
    check_runnable(model)
    require(model, request.model, "generate", insert=bool(request.suffix))
    spec, options = services.prepare(model, request.options, shift=request.shift)
    if not request.prompt:
        async with services.scheduler.lease(spec, keep_alive=request.keep_alive, slot=False):
            return _single(services, request, "load")
    if request.template or request.suffix:
        raise OllamadError(
            "this version does not run Go templates yet: leave out 'template' and 'suffix', or "
            "send the whole prompt with 'raw'",
            status=501,
        )
    if "mllama" in model.families and len(request.images or []) > 1:
        raise BadRequest("this model only supports one image while more than one image requested")
    if not request.raw:
        check_template(model)
    run = _Run(services, request, model, spec, options, think, started)
    if request.debug_render_only:
        return await run.rendering()
    return run.events()


def _single(services: Services, request: GenerateRequest, reason: str) -> GenerateResponse:
    return GenerateResponse(
        model=request.model,
        created_at=services.clock.now(),
        response="",
        done=True,
        done_reason=reason,
    )


@dataclass
class _Prompt:
    """What is sent: ``sent`` is ``text``, or its tokens when it had to be cut."""

    text: str
    sent: str | list[int]
    media: list[bytes]
    dropped: int


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
    ) -> None:
        self._services = services
        self._request = request
        self._model = model
        self._spec = spec
        self._options = options
        self._think = think
        self._started = started

    async def rendering(self) -> GenerateResponse:
        """The prompt instead of an answer (9.6)."""
        async with self._services.scheduler.lease(
            self._spec, keep_alive=self._request.keep_alive
        ) as lease:
            prompt = await self._prompt(lease)
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
            loaded = time.monotonic_ns()
            prompt = await self._prompt(lease)
            yield []
            fmt = checked_format(request.format)
            await check_format(lease, fmt)
            body = completion_body(
                prompt.sent,
                self._options,
                num_ctx=lease.num_ctx,
                fmt=fmt,
                media=prompt.media,
                media_marker=lease.runner.media_marker,
                logprobs=request.logprobs,
                top_logprobs=request.top_logprobs,
            )
            stream = CompletionStream(logprobs=request.logprobs, top_logprobs=request.top_logprobs)
            said: list[str] = []
            answer = pieces(
                services.scheduler,
                lease,
                "/completion",
                body,
                stream,
                limit=self._options.num_predict,
            )
            # The runner's slot must be free before the lease says so.
            async with aclosing(answer):
                async for batch in answer:
                    said.extend(p.content for p in batch)
                    yield [self._event(p) for p in batch]
            assert stream.final is not None
            context = None
            if not request.raw:
                context = await lease.runner.client.tokenize(prompt.text + "".join(said))
            yield [self._last(stream.final, context, prompt.dropped, loaded)]

    async def _prompt(self, lease: Lease[Runner]) -> _Prompt:
        request, model = self._request, self._model
        media = list(request.images or [])
        dropped = 0
        if request.raw:
            text = request.prompt
        else:
            conversation = generate_conversation(
                request.prompt,
                images=request.images,
                system=request.system or model.system,
                stored=model.messages,
                has_context=request.context is not None,
            )
            conversation, dropped = await fitted(
                lease, model, conversation, think=self._think, truncate=request.truncate
            )
            if model.chat_template:
                text, media = await rendered(lease, conversation, think=self._think)
            else:
                conversation, media = tagged(conversation)
                text = conversation[-1].content
            if request.context is not None:
                text = await lease.runner.client.detokenize(request.context) + text
        text = without_doubled_bos(text, adds_bos=model.adds_bos)
        sent: str | list[int] = text
        if request.truncate is not False and not media:
            sent, cut = await cut_prompt(
                lease,
                text,
                num_keep=self._options.num_keep,
                adds_bos=model.adds_bos,
                shift=self._spec.context_shift,
            )
            dropped += cut
        if dropped:
            log.warning(
                "prompt cut to fit the context",
                extra={"model": model.short_name, "dropped": dropped, "num_ctx": lease.num_ctx},
            )
        return _Prompt(text, sent, media, dropped)

    def _event(self, piece: Piece) -> GenerateResponse:
        return GenerateResponse(
            model=self._request.model,
            created_at=self._services.clock.now(),
            response=piece.content,
            done=False,
            logprobs=piece.logprobs,
        )

    def _last(
        self, final: Final, context: list[int] | None, dropped: int, loaded: int
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
            prompt_truncated=dropped,
        )


def without_doubled_bos(prompt: str, *, adds_bos: bool) -> str:
    """Drop a leading ``<bos>`` that the tokenizer adds by itself (runners-and-scheduling 3.5)."""
    return prompt.removeprefix("<bos>") if adds_bos else prompt


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
