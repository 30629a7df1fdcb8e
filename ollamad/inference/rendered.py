"""The rendered path: the daemon makes the prompt, ``/completion`` continues it, a parser reads it.

Source: prompting.md 1.5 to 1.8, 5.2; http-api.md 8.4 and 8.5.
"""

from __future__ import annotations

import datetime
import secrets
import string
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from ollamad.errors import OllamadError, RunnerError
from ollamad.gotemplate.errors import TemplateSyntaxError
from ollamad.inference.prompt import check_format
from ollamad.inference.run import cut_prompt, pieces
from ollamad.models.catalog import KnownModel
from ollamad.parsing.answer import AnswerParser, ConstraintPoint, Pieces
from ollamad.parsing.stream import CompletionStream, Final, Piece
from ollamad.prompting.messages import IMAGE_TOKENS, Cut, image_count
from ollamad.prompting.prompter import Prompter
from ollamad.prompting.renderers.conversation import Renderer
from ollamad.prompting.renderers.registry import find_renderer, renderer_names
from ollamad.prompting.requests import Format, completion_body
from ollamad.prompting.template import Template, parse_template
from ollamad.runners.process import Runner
from ollamad.scheduler.lease import Lease
from ollamad.scheduler.options import Options
from ollamad.scheduler.shell import Scheduler
from ollamad.wire import Message, Think, Tool

_ID_LETTERS = string.ascii_lowercase + string.digits


def new_call_id() -> str:
    """The id of a tool call (1.8)."""
    return "call_" + "".join(secrets.choice(_ID_LETTERS) for _ in range(8))


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
class Prompt:
    """What is sent: ``sent`` is ``text``, or its tokens when it had to be cut.

    ``media`` in the order of the ``[img-N]`` tags in the text; ``dropped``: tokens that are gone.
    """

    text: str
    sent: str | list[int]
    media: Sequence[bytes] = ()
    dropped: int = 0


async def ready_prompt(
    lease: Lease[Runner],
    text: str,
    media: Sequence[bytes],
    *,
    num_keep: int,
    adds_bos: bool,
    context_shift: bool,
    truncate: bool | None,
    dropped: int = 0,
) -> Prompt:
    """``text`` as it can be sent; its middle is cut out if it is longer than the context (1.7).

    Raises BadRequest when it is too long and the context may not be shifted.
    """
    sent: str | list[int] = text
    if truncate is not False and not media:
        sent, cut = await cut_prompt(
            lease, text, num_keep=num_keep, adds_bos=adds_bos, shift=context_shift
        )
        dropped += cut
    return Prompt(text, sent, media, dropped)


class Answer:
    """The answer to one prompt.

    ``waits``: a format applies only where the answer itself begins, after reasoning and calls.
    """

    def __init__(
        self,
        scheduler: Scheduler[Runner],
        lease: Lease[Runner],
        prompt: Prompt,
        options: Options,
        parser: AnswerParser,
        *,
        fmt: Format | None = None,
        waits: bool = False,
        logprobs: bool = False,
        top_logprobs: int = 0,
    ) -> None:
        self._scheduler = scheduler
        self._lease = lease
        self._prompt = prompt
        self._options = options
        self._parser = parser
        self._fmt = fmt
        self._point = ConstraintPoint() if fmt is not None and waits else None
        self._logprobs = logprobs
        self._top_logprobs = top_logprobs
        self._said: list[str] = []
        #: Set when the answer is complete.
        self.final: Final | None = None

    @property
    def raw(self) -> str:
        """All that the model said, as it said it."""
        return "".join(self._said)

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """The pieces of the answer, those that arrived together in one list.

        Ends with ``final`` set. Raises RunnerError. Closing this generator frees the runner's slot.
        """
        await check_format(self._lease, self._fmt)
        free = self._completion(
            self._prompt.sent, self._options, None if self._point else self._fmt
        )
        async with aclosing(self._free(free)) as batches:
            async for batch in batches:
                yield batch
        if self._point is not None and self._point.prefix is not None:
            async with aclosing(self._constrained(self._point.prefix)) as batches:
                async for batch in batches:
                    yield batch

    async def _free(self, answer: _Completion) -> AsyncGenerator[list[Piece], None]:
        """The answer until its end, or until the point from which on it is constrained."""
        point, parser, said = self._point, self._parser, self._said
        make = Pieces(new_call_id)
        async with aclosing(answer.pieces()) as batches:
            async for batch in batches:
                if parser.is_plain and point is None:
                    said += [piece.content for piece in batch]
                    yield batch
                    continue
                out: list[Piece] = []
                for piece in batch:
                    said.append(piece.content)
                    events = parser.feed(piece.content)
                    logprobs = piece.logprobs
                    if point is not None:
                        events = point.feed(piece.content, events)
                        if point.prefix is not None:
                            out += make.of(events)
                            break
                    out += make.of(events, logprobs)
                if out:
                    yield out
                if point is not None and point.prefix is not None:
                    break
        if point is None or point.prefix is None:
            events = parser.finish()
            if point is not None:
                events = point.feed("", events)
            if rest := make.of(events):
                yield rest
            self.final = answer.final
        self._timing_before = answer.timing()

    async def _constrained(self, prefix: str) -> AsyncGenerator[list[Piece], None]:
        """The rest of the answer, from behind ``prefix`` on, in the wanted format."""
        used = _tokens_of(prefix, self._said)
        options = self._options
        if options.num_predict > 0:
            options = msgspec.structs.replace(
                options, num_predict=max(options.num_predict - used, 1)
            )
        sent = self._prompt.sent
        if isinstance(sent, str):
            sent += prefix
        else:
            sent = sent + await self._lease.runner.client.tokenize(prefix)
        self._said = [prefix]
        answer = self._completion(sent, options, self._fmt)
        async with aclosing(answer.pieces()) as batches:
            async for batch in batches:
                self._said += [piece.content for piece in batch]
                yield batch
        assert answer.final is not None
        prompt_ns, eval_ns = self._timing_before
        self.final = Final(
            answer.final.done_reason,
            prompt_eval_count=max(answer.final.prompt_eval_count - used, 0),
            prompt_eval_duration=prompt_ns,
            eval_count=answer.final.eval_count + used,
            eval_duration=answer.final.eval_duration + eval_ns,
        )

    def _completion(
        self, sent: str | list[int], options: Options, fmt: Format | None
    ) -> _Completion:
        lease = self._lease
        body = completion_body(
            sent,
            options,
            num_ctx=lease.num_ctx,
            fmt=fmt,
            media=self._prompt.media,
            media_marker=lease.runner.media_marker,
            preserved_tokens=self._parser.preserved_tokens,
            logprobs=self._logprobs,
            top_logprobs=self._top_logprobs,
        )
        stream = CompletionStream(logprobs=self._logprobs, top_logprobs=self._top_logprobs)
        return _Completion(self._scheduler, lease, body, stream, options.num_predict)


def _tokens_of(prefix: str, said: Sequence[str]) -> int:
    """How many tokens of an answer make up its ``prefix``, those that go beyond it included.

    A token is what one event brought, so the bytes of a character that took several count as one.
    """
    starts = accumulate(map(len, said), initial=0)
    return sum(1 for text, start in zip(said, starts, strict=False) if text and start < len(prefix))


class _Completion:
    """One request to ``/completion``."""

    def __init__(
        self,
        scheduler: Scheduler[Runner],
        lease: Lease[Runner],
        body: bytes,
        stream: CompletionStream,
        limit: int,
    ) -> None:
        self._scheduler = scheduler
        self._lease = lease
        self._body = body
        self._stream = stream
        self._limit = limit
        self._started = self._first = 0

    @property
    def final(self) -> Final | None:
        return self._stream.final

    def timing(self) -> tuple[int, int]:
        """Nanoseconds before and since the first token."""
        now = time.monotonic_ns()
        first = self._first or now
        return first - self._started, now - first

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        self._started = time.monotonic_ns()
        answer = pieces(
            self._scheduler,
            self._lease,
            "/completion",
            self._body,
            self._stream,
            limit=self._limit,
        )
        async with aclosing(answer):
            async for batch in answer:
                self._first = self._first or time.monotonic_ns()
                yield batch
        if self._stream.final is None:
            raise RunnerError("an error was encountered while running the model: unexpected EOF")
