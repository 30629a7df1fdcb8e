"""The answer to a prompt: ``/completion`` continues it, a parser reads it, a format constrains it.

Source: prompting.md 1.8, http-api.md 8.5.
"""

from __future__ import annotations

import logging
import secrets
import string
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import accumulate

import msgspec

from ollamad.errors import BadRequest, RunnerError
from ollamad.inference.parser_choice import ChosenParser
from ollamad.inference.prompt import check_format
from ollamad.inference.rendered import Prompt, ready_prompt
from ollamad.inference.run import pieces
from ollamad.parsing.answer import AnswerParser, ConstraintPoint, Pieces
from ollamad.parsing.stream import CompletionStream, Final, Piece
from ollamad.prompting.requests import Format, checked_format, completion_body
from ollamad.runners.process import Runner
from ollamad.scheduler.lease import Lease
from ollamad.scheduler.options import Options
from ollamad.scheduler.shell import Scheduler
from ollamad.wire import ChatRequest, GenerateRequest, Logprob

log = logging.getLogger(__name__)

_ID_LETTERS = string.ascii_lowercase + string.digits


def new_call_id() -> str:
    """The id of a tool call (1.8)."""
    return "call_" + "".join(secrets.choice(_ID_LETTERS) for _ in range(8))


class Answer:
    """The answer to one prompt.

    ``waits``: a format applies only where the answer itself begins, after reasoning and, with
    ``may_call``, instead of calls.
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
        may_call: bool = False,
        logprobs: bool = False,
        top_logprobs: int = 0,
    ) -> None:
        self._scheduler = scheduler
        self._lease = lease
        self._prompt = prompt
        self._options = options
        self._parser = parser
        self._fmt = fmt
        self._point = (
            ConstraintPoint(parser, may_call=may_call) if fmt is not None and waits else None
        )
        self._make = Pieces(new_call_id)
        self._logprobs = logprobs
        self._top_logprobs = top_logprobs
        self._said: list[str] = []
        #: Set when the answer is complete.
        self.final: Final | None = None

    @classmethod
    def to(
        cls,
        request: ChatRequest | GenerateRequest,
        scheduler: Scheduler[Runner],
        lease: Lease[Runner],
        prompt: Prompt,
        options: Options,
        chosen: ChosenParser,
    ) -> Answer:
        """The answer that ``request`` wants. Raises OllamadError (500) for a bad ``format``."""
        return cls(
            scheduler,
            lease,
            prompt,
            options,
            chosen.parser,
            fmt=checked_format(request.format),
            waits=chosen.waits,
            may_call=isinstance(request, ChatRequest) and bool(request.tools),
            logprobs=request.logprobs,
            top_logprobs=request.top_logprobs,
        )

    @property
    def raw(self) -> str:
        """All that the model said, as it said it."""
        return "".join(self._said)

    @property
    def dropped(self) -> int:
        """Tokens of the prompt that are gone."""
        return self._prompt.dropped

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """The pieces of the answer, those that arrived together in one list.

        Ends with ``final`` set. Raises RunnerError. Closing this generator frees the runner's slot.
        """
        await check_format(self._lease, self._fmt)
        point = self._point
        first = self._completion(self._prompt.sent, self._options, None if point else self._fmt)
        run = self._free(first) if point is None else self._until(point, first)
        async with aclosing(run) as batches:
            async for batch in batches:
                yield batch
        if point is None or point.prefix is None:
            self.final = await self._counted(first)
            return
        async with aclosing(self._constrained(point.prefix, first.timing())) as batches:
            async for batch in batches:
                yield batch

    async def _free(self, answer: _Completion) -> AsyncGenerator[list[Piece], None]:
        """The whole answer."""
        parser, make = self._parser, self._make
        try:
            async with aclosing(answer.pieces()) as batches:
                async for batch in batches:
                    self._said += [piece.content for piece in batch]
                    if parser.is_plain:
                        yield batch
                    elif out := [
                        made
                        for piece in batch
                        for made in make.of(parser.feed(piece.content), piece.logprobs)
                    ]:
                        yield out
        except RunnerError:
            # What it said before must not be lost.
            if rest := make.of(parser.finish()):
                yield rest
            raise
        if rest := make.of(parser.finish()):
            yield rest

    async def _until(
        self, point: ConstraintPoint, answer: _Completion
    ) -> AsyncGenerator[list[Piece], None]:
        """What comes before the answer itself; all of it when there is none."""
        make = self._make
        waiting = _Waiting()
        try:
            async with aclosing(answer.pieces()) as batches:
                async for batch in batches:
                    out: list[Piece] = []
                    for piece in batch:
                        self._said.append(piece.content)
                        events = point.feed(piece.content)
                        waiting.add(piece)
                        if events or point.prefix is not None:
                            out += make.of(events, waiting.take(point.prefix))
                        if point.prefix is not None:
                            break
                    if out:
                        yield out
                    if point.prefix is not None:
                        return
        except RunnerError:
            if rest := make.of(point.give_up(), waiting.take(None)):
                yield rest
            raise
        assert answer.final is not None
        stopped = answer.final.done_reason == "stop" and not answer.abandoned
        events = point.finish(stopped=stopped)
        if rest := make.of(events, waiting.take(point.prefix)):
            yield rest

    async def _constrained(
        self, prefix: str, timing: tuple[int, int]
    ) -> AsyncGenerator[list[Piece], None]:
        """The rest of the answer, from behind ``prefix`` on, in the wanted format.

        ``timing``: nanoseconds before and since the first token of what came before.
        """
        used = _tokens_of(prefix, self._said)
        options, before = self._options, self._prompt
        self._said = [prefix]
        prompt_ns, eval_ns = timing
        self.final = Final("length", None, 0, prompt_ns, used, eval_ns)
        if options.num_predict > 0:
            if used >= options.num_predict:
                return
            options = msgspec.structs.replace(options, num_predict=options.num_predict - used)
        try:
            self._prompt = await ready_prompt(
                self._lease,
                before.text + prefix,
                before.media,
                before.cutting,
                dropped=before.dropped - before.cut,
            )
        except BadRequest:
            return  # the reasoning has filled the context, which may not be shifted
        if self._prompt.cut > before.cut:
            log.warning(
                "the prompt was cut behind the reasoning to fit the context",
                extra={"dropped": self._prompt.dropped, "num_ctx": self._lease.num_ctx},
            )
        answer = self._completion(self._prompt.sent, options, self._fmt)
        async with aclosing(answer.pieces()) as batches:
            async for batch in batches:
                self._said += [piece.content for piece in batch]
                yield batch
        assert answer.final is not None
        self.final = Final(
            answer.final.done_reason,
            prompt_eval_count=max(answer.final.prompt_eval_count - used, 0),
            prompt_eval_duration=prompt_ns,
            eval_count=answer.final.eval_count + used,
            eval_duration=answer.final.eval_duration + eval_ns,
        )

    async def _counted(self, answer: _Completion) -> Final:
        """The end of an answer; one that was abandoned does not know how long its prompt was."""
        final = answer.final
        assert final is not None
        if answer.abandoned:
            sent = self._prompt.sent
            tokens = sent if isinstance(sent, list) else await self._tokenized(sent)
            final.prompt_eval_count = len(tokens)
        return final

    async def _tokenized(self, text: str) -> list[int]:
        return await self._lease.runner.client.tokenize(text, add_special=True)

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
        return _Completion(
            self._scheduler, lease, body, stream, options.num_predict, has_format=fmt is not None
        )


class _Waiting:
    """Log probabilities of tokens whose text has not gone out yet."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, list[Logprob]]] = []
        self._length = 0

    def add(self, piece: Piece) -> None:
        """The next token of the answer."""
        if piece.logprobs:
            self._entries.append((self._length, piece.logprobs))
        self._length += len(piece.content)

    def take(self, prefix: str | None) -> list[Logprob]:
        """All of them; with ``prefix`` only those of its tokens, for the others are said again."""
        end = self._length + 1 if prefix is None else len(prefix)
        taken = [entry for start, entries in self._entries if start < end for entry in entries]
        self._entries = []
        return taken


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
        *,
        has_format: bool,
    ) -> None:
        self._scheduler = scheduler
        self._lease = lease
        self._body = body
        self._stream = stream
        self._limit = limit
        self._has_format = has_format
        self._started = self._first = 0

    @property
    def final(self) -> Final | None:
        return self._stream.final

    @property
    def abandoned(self) -> bool:
        """Whether the model only repeated itself."""
        return self._stream.abandoned

    def timing(self) -> tuple[int, int]:
        """Nanoseconds before and since the first token."""
        now = time.monotonic_ns()
        first = self._first or now
        return first - self._started, now - first

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """Raises RunnerError, with the status 400 for a format that the runner cannot compile."""
        runner = self._lease.runner
        refused = runner.refused_schemas if self._has_format else 0
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
                if self._has_format and not self._first:
                    # It says so only in its log, before it goes on without any constraint.
                    await runner.logged()
                    if runner.refused_schemas > refused:
                        raise RunnerError(f"invalid format: {runner.refusal}", status=400)
                self._first = self._first or time.monotonic_ns()
                yield batch
        if self._stream.final is None:
            raise RunnerError("an error was encountered while running the model: unexpected EOF")
