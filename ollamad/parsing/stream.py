"""llama-server's streams to pieces of an answer: ``/completion`` and ``/v1/chat/completions``.

Sans-I/O: ``feed(payload)`` takes one event's JSON and gives a Piece or nothing; once ``final`` is
set the answer is complete. Source: runners-and-scheduling.md 3.8 to 3.11. Built for the hot path:
an event is decoded once, straight into the few fields that matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from ollamad.errors import RunnerError
from ollamad.runners.protocol import (
    Timings,
    TokenProbability,
    ToolCallPiece,
    decode_chat,
    decode_completion,
)
from ollamad.wire import Logprob, ToolCall, ToolCallFunction, TopLogprob

#: More equal pieces in a row than this end a generation: the model only repeats itself (3.8).
MAX_REPEATS = 30


class Piece(msgspec.Struct, gc=False):
    """What one event adds to the answer: thinking, then content, then tool calls."""

    content: str = ""
    thinking: str = ""
    logprobs: list[Logprob] | None = None
    tool_calls: list[ToolCall] | None = None


class Final(msgspec.Struct):
    """The end of an answer: why it ended, the runner's counts and times (nanoseconds)."""

    done_reason: str
    tool_calls: list[ToolCall] | None = None
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class PieceStream(Protocol):
    """What reads one of the runner's streams."""

    final: Final | None
    abandoned: bool

    def feed(self, payload: bytes) -> Piece | None: ...


def feed_all(
    stream: PieceStream, payloads: Iterable[bytes]
) -> tuple[list[Piece], RunnerError | None]:
    """The pieces of events that arrived together, up to an error or where no more is wanted.

    The error is returned, not raised: what the model said before it must not be lost.
    """
    pieces = []
    try:
        for payload in payloads:
            if (piece := stream.feed(payload)) is not None:
                pieces.append(piece)
            if stream.abandoned:
                break
    except RunnerError as error:
        return pieces, error
    return pieces, None


class CompletionStream:
    """Reads ``/completion``. ``top_logprobs``: how many alternatives the client wants."""

    def __init__(self, *, logprobs: bool = False, top_logprobs: int = 0) -> None:
        self.final: Final | None = None
        #: The rest of the stream is not wanted: the model only repeats itself.
        self.abandoned = False
        self._top = top_logprobs if logprobs else 0
        self._last = ""
        self._repeats = 0
        self._pieces = 0

    def feed(self, payload: bytes) -> Piece | None:
        """Raises RunnerError for an error event and for what is not an event."""
        event = decode_completion(payload)
        piece = None
        if event.content or event.completion_probabilities:
            piece = Piece(
                content=event.content or "",
                logprobs=_logprobs(event.completion_probabilities, self._top),
            )
            self._pieces += 1
        if event.stop:
            self.final = _final(event.done_reason, event.timings)
            return piece
        if self._repeats_itself(event.content or ""):
            self.final = Final("stop", eval_count=self._pieces)
            self.abandoned = True
            return None
        return piece

    def _repeats_itself(self, content: str) -> bool:
        text = content.strip()
        if text == self._last:
            self._repeats += 1
            return self._repeats > MAX_REPEATS
        self._last = text
        self._repeats = 0
        return False


class ChatStream:
    """Reads ``/v1/chat/completions``; tool calls are put together and come with ``final``.

    One whose arguments are no JSON object, cut off or malformed, comes as text: no call that can be
    carried out, but nothing that the model said is lost.
    """

    abandoned = False

    def __init__(self, *, logprobs: bool = False, top_logprobs: int = 0) -> None:
        self.final: Final | None = None
        self._top = top_logprobs if logprobs else 0
        self._calls: dict[int, _ToolCallText] = {}
        self._content = ""

    def feed(self, payload: bytes) -> Piece | None:
        """Raises RunnerError for an error event and for what is not an event."""
        if payload == b"[DONE]":
            return None
        event = decode_chat(payload)
        if not event.choices:
            return None
        choice = event.choices[0]
        delta = choice.delta
        if delta is not None and delta.tool_calls:
            for call in delta.tool_calls:
                self._calls.setdefault(call.index, _ToolCallText()).add(call)
        logprobs = choice.logprobs.content if choice.logprobs else None
        piece = None
        if delta is not None and (delta.content or delta.reasoning_content or logprobs):
            self._content = delta.content or self._content
            piece = Piece(
                delta.content or "", delta.reasoning_content or "", _logprobs(logprobs, self._top)
            )
        if choice.finish_reason is not None:
            reason = "length" if choice.finish_reason == "length" else "stop"
            self.final = _final(reason, event.timings)
            if self._calls:
                piece = self._end_calls(self.final, piece)
        return piece

    def _end_calls(self, final: Final, piece: Piece | None) -> Piece | None:
        """Gives ``final`` its calls, and the last piece the text of those that are none."""
        calls: list[ToolCall] = []
        for _, text in sorted(self._calls.items()):
            call = text.call(len(calls))
            if call is not None:
                calls.append(call)
                continue
            piece = piece or Piece()
            if self._content and not self._content[-1].isspace():
                piece.content += "\n"
            piece.content += text.raw
            self._content = text.raw
        final.tool_calls = calls or None
        return piece


class _ToolCallText:
    """The pieces of one tool call."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = ""

    def add(self, delta: ToolCallPiece) -> None:
        self.id += delta.id or ""
        if delta.function is not None:
            self.name += delta.function.name or ""
            self.arguments += delta.function.arguments or ""

    @property
    def raw(self) -> str:
        """What the model wrote, as far as the runner passes it on."""
        return f"{self.name} {self.arguments}"

    def call(self, index: int) -> ToolCall | None:
        """None when the model wrote arguments that are no JSON object."""
        arguments: dict[str, Any] = {}
        if self.arguments.strip():
            try:
                arguments = msgspec.json.decode(self.arguments, type=dict[str, Any])
            except (ValueError, RecursionError):  # the latter for what is nested too deep
                return None
        return ToolCall(
            id=self.id,
            function=ToolCallFunction(index=index, name=self.name, arguments=arguments),
        )


def _final(reason: str, timings: Timings | None) -> Final:
    t = timings or Timings()
    return Final(
        reason,
        prompt_eval_count=t.prompt_eval_count,
        prompt_eval_duration=t.prompt_eval_ns,
        eval_count=t.eval_count,
        eval_duration=t.eval_ns,
    )


def _logprobs(entries: list[TokenProbability] | None, top: int) -> list[Logprob] | None:
    if not entries:
        return None
    return [
        Logprob(
            token=e.token,
            logprob=e.value,
            bytes=list(e.token.encode()) or None,
            top_logprobs=[
                TopLogprob(token=t.token, logprob=t.value, bytes=list(t.token.encode()) or None)
                for t in e.alternatives[:top]
            ]
            or None
            if top
            else None,
        )
        for e in entries
    ]
