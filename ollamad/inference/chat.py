"""``POST /api/chat`` behind the wire (http-api.md 10, prompting.md 1.5 and 1.9)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ollamad.errors import RunnerError
from ollamad.inference.answer import Answer
from ollamad.inference.calls import in_order
from ollamad.inference.parser_choice import ChosenParser, ParserChoice
from ollamad.inference.prompt import fitted, rendered
from ollamad.inference.remote import RemoteAnswer, remote_chat
from ollamad.inference.rendered import (
    Prompt,
    cutting_of,
    fitted_rendered,
    prompter_of,
    ready_prompt,
    without_doubled_bos,
)
from ollamad.inference.run import pieces
from ollamad.inference.services import (
    Services,
    check_runnable,
    check_template,
    check_thinking,
    check_top_logprobs,
    readable_conversation,
    require,
)
from ollamad.models.catalog import KnownModel
from ollamad.parsing.stream import ChatStream, Final, Piece
from ollamad.prompting.messages import chat_conversation, forgets_reasoning
from ollamad.prompting.requests import chat_body, checked_format
from ollamad.prompting.schema_check import check_schema
from ollamad.runners.process import Runner
from ollamad.scheduler.lease import Lease, Waited
from ollamad.scheduler.options import Options
from ollamad.scheduler.spec import ModelSpec
from ollamad.wire import ChatRequest, ChatResponse, DebugInfo, Message, Think

log = logging.getLogger(__name__)

Events = AsyncGenerator[list[ChatResponse], None]


async def chat(
    services: Services, request: ChatRequest, waited: Waited
) -> ChatResponse | Events | RemoteAnswer:
    """One object (load, unload, debug), the events of an answer in batches, or those of a stub.

    The checks come in the contract's order (10.2). The first batch is empty, as that of
    ``generate``. ``waited`` is filled when there is a runner. Raises OllamadError.
    """
    started = time.monotonic_ns()
    check_top_logprobs(request.top_logprobs)
    model = await services.models.find(request.model)
    if not request.messages and request.keep_alive == 0:
        services.scheduler.expire(model.key)
        return _single(services, request, "unload")
    check_template(model)
    if model.is_remote:
        return await remote_chat(services, request, model)
    think = check_thinking(model, request.model, request.think)
    check_runnable(model)
    require(model, request.model, "chat", tools=bool(request.tools))
    spec, options = await services.prepare(model, request.options, shift=request.shift)
    if not request.messages:
        async with services.scheduler.lease(
            spec, keep_alive=request.keep_alive, slot=False
        ) as lease:
            waited.for_lease(lease)
            return _single(services, request, "load")
    messages = chat_conversation(
        request.messages,
        stored=model.messages,
        system=model.system,
        forget_reasoning=forgets_reasoning(model.family, model.name.model),
    )
    if not request.debug_render_only:
        messages = await readable_conversation(model, messages)
    run = _Run(services, request, model, spec, options, messages, think, started, waited)
    if request.debug_render_only:
        return await run.rendering()
    return run.events()


def _single(services: Services, request: ChatRequest, reason: str) -> ChatResponse:
    return ChatResponse(
        model=request.model,
        created_at=services.clock.now(),
        message=Message(role="assistant", content=""),
        done=True,
        done_reason=reason,
    )


class _Run:
    """One chat answer, after all checks."""

    def __init__(
        self,
        services: Services,
        request: ChatRequest,
        model: KnownModel,
        spec: ModelSpec,
        options: Options,
        messages: list[Message],
        think: Think | None,
        started: int,
        waited: Waited,
    ) -> None:
        self._services = services
        self._request = request
        self._model = model
        self._spec = spec
        self._options = options
        self._messages = messages
        self._think = think
        self._started = started
        self._waited = waited

    async def rendering(self) -> ChatResponse:
        """The prompt instead of an answer (10.7)."""
        request = self._request
        async with self._services.scheduler.lease(
            self._spec, keep_alive=request.keep_alive
        ) as lease:
            self._waited.for_lease(lease)
            if self._model.is_rendered:
                prompt, _ = await self._rendered_prompt(lease)
                text, images = prompt.text, len(prompt.media)
            else:
                kept, _ = await self._fitted(lease)
                text, media = await rendered(lease, kept, think=self._think, tools=request.tools)
                images = len(media)
        return ChatResponse(
            model=request.model,
            created_at=self._services.clock.now(),
            message=Message(role="", content=""),
            done=False,
            debug_info=DebugInfo(rendered_template=text, image_count=images),
        )

    def events(self) -> Events:
        """The answer in batches of events; the first batch is empty."""
        return self._rendered_events() if self._model.is_rendered else self._native_events()

    async def _native_events(self) -> Events:
        request, services = self._request, self._services
        async with services.scheduler.lease(self._spec, keep_alive=request.keep_alive) as lease:
            self._waited.for_lease(lease)
            loaded = time.monotonic_ns()
            kept, dropped = await self._fitted(lease)
            self._complain(len(self._messages) - len(kept), dropped, lease.num_ctx)
            yield []
            fmt = checked_format(request.format)
            check_schema(fmt)
            body = chat_body(
                kept,
                self._options,
                num_ctx=lease.num_ctx,
                think=self._think,
                tools=request.tools,
                fmt=fmt,
                logprobs=request.logprobs,
                top_logprobs=request.top_logprobs,
            )
            stream = ChatStream(logprobs=request.logprobs, top_logprobs=request.top_logprobs)
            answer = pieces(
                services.scheduler,
                lease,
                "/v1/chat/completions",
                body,
                stream,
                limit=self._options.num_predict,
            )
            # The runner's slot must be free before the lease says so.
            async with aclosing(answer):
                async for batch in answer:
                    yield [self._event(p) for p in batch]
            assert stream.final is not None
            yield [self._last(stream.final, dropped, loaded)]

    async def _rendered_events(self) -> Events:
        request, services = self._request, self._services
        async with services.scheduler.lease(self._spec, keep_alive=request.keep_alive) as lease:
            self._waited.for_lease(lease)
            loaded = time.monotonic_ns()
            prompt, parser = await self._rendered_prompt(lease)
            yield []
            answer = Answer.to(request, services.scheduler, lease, prompt, self._options, parser)
            async with aclosing(answer.pieces()) as batches:
                async for batch in batches:
                    yield [self._event(p) for p in batch]
            assert answer.final is not None
            yield [self._last(answer.final, answer.dropped, loaded)]

    async def _rendered_prompt(self, lease: Lease[Runner]) -> tuple[Prompt, ChosenParser]:
        request, model = self._request, self._model
        prompter = prompter_of(model)
        choice = ParserChoice(model, self._think, last=self._messages[-1], tools=request.tools)
        kept, dropped = await fitted_rendered(
            lease,
            prompter,
            model,
            self._messages,
            tools=choice.tools,
            think=choice.think,
            truncate=request.truncate,
        )
        text, media = prompter.prompt(kept, tools=choice.tools, think=choice.think)
        text = without_doubled_bos(model, text)
        prompt = await ready_prompt(
            lease,
            text,
            media,
            cutting_of(model, self._spec, request.truncate),
            dropped=dropped,
        )
        self._complain(len(self._messages) - len(kept), prompt.dropped, lease.num_ctx)
        return prompt, choice.parser(text)

    async def _fitted(self, lease: Lease[Runner]) -> tuple[list[Message], int]:
        return await fitted(
            lease,
            self._model,
            self._messages,
            think=self._think,
            truncate=self._request.truncate,
            tools=self._request.tools,
        )

    def _complain(self, messages: int, tokens: int, num_ctx: int) -> None:
        if tokens or messages:
            log.warning(
                "the conversation was cut to fit the context",
                extra={
                    "model": self._model.short_name,
                    "messages": messages,
                    "tokens": tokens,
                    "num_ctx": num_ctx,
                },
            )

    def _event(self, piece: Piece) -> ChatResponse:
        return ChatResponse(
            model=self._request.model,
            created_at=self._services.clock.now(),
            message=Message(
                role="assistant",
                content=piece.content,
                thinking=piece.thinking,
                tool_calls=in_order(piece.tool_calls),
            ),
            done=False,
            logprobs=piece.logprobs,
        )

    def _last(self, final: Final, dropped: int, loaded: int) -> ChatResponse:
        return ChatResponse(
            model=self._request.model,
            created_at=self._services.clock.now(),
            message=Message(role="assistant", content="", tool_calls=in_order(final.tool_calls)),
            done=True,
            done_reason=final.done_reason,
            total_duration=time.monotonic_ns() - self._started,
            load_duration=loaded - self._started,
            prompt_eval_count=final.prompt_eval_count,
            prompt_eval_duration=final.prompt_eval_duration,
            eval_count=final.eval_count,
            eval_duration=final.eval_duration,
            prompt_truncated=dropped,
        )


def whole(events: list[ChatResponse]) -> ChatResponse:
    """All events of an answer as one object, for ``stream: false`` (http-api.md 7.6).

    Raises RunnerError for an answer without any event.
    """
    if not events:
        raise RunnerError("an error was encountered while running the model: unexpected EOF")
    last = events[-1]
    calls = [call for e in events for call in e.message.tool_calls or []]
    last.message = Message(
        role="assistant",
        content="".join(e.message.content for e in events),
        thinking="".join(e.message.thinking for e in events),
        tool_calls=calls or None,
    )
    last.logprobs = [entry for e in events for entry in e.logprobs or []] or None
    return last
