"""llama-server's streams to pieces of an answer: ``/completion`` and ``/v1/chat/completions``.

Sans-I/O: ``feed(payload)`` takes one event's JSON and gives a Piece or nothing; once ``final`` is
set the answer is complete. Source: runners-and-scheduling.md 3.8 to 3.11. Built for the hot path:
an event is decoded once, straight into the few fields that matter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ollamad.errors import RunnerError
from ollamad.wire import Logprob, ToolCall, ToolCallFunction, TopLogprob

#: More equal pieces in a row than this end a generation: the model only repeats itself (3.8).
MAX_REPEATS = 30


class Piece(msgspec.Struct, gc=False):
    """What one event adds to the answer."""

    content: str = ""
    thinking: str = ""
    logprobs: list[Logprob] | None = None


class Final(msgspec.Struct):
    """The end of an answer: why it ended, the runner's counts and times (nanoseconds)."""

    done_reason: str
    tool_calls: list[ToolCall] | None = None
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class _Timings(msgspec.Struct):
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class _Probability(msgspec.Struct):
    token: str = ""
    logprob: float | None = None
    prob: float = 0.0
    top_logprobs: list[_Probability] | None = None
    top_probs: list[_Probability] | None = None


class _CompletionEvent(msgspec.Struct):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    timings: _Timings | None = None
    completion_probabilities: list[_Probability] | None = None
    error: Any = None


class _ToolFunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCallDelta(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _ToolFunctionDelta | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCallDelta] | None = None


class _ChoiceLogprobs(msgspec.Struct):
    content: list[_Probability] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None
    logprobs: _ChoiceLogprobs | None = None


class _ChatEvent(msgspec.Struct):
    choices: list[_Choice] | None = None
    timings: _Timings | None = None
    error: Any = None


_decode_completion = msgspec.json.Decoder(_CompletionEvent).decode
_decode_chat = msgspec.json.Decoder(_ChatEvent).decode


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
        try:
            event = _decode_completion(payload)
        except msgspec.DecodeError as error:
            raise _undecodable("llama-server response", error) from error
        if event.error is not None:
            raise RunnerError(_error_text(event.error))
        piece = None
        if event.content or event.completion_probabilities:
            piece = Piece(
                content=event.content,
                logprobs=_logprobs(event.completion_probabilities, self._top),
            )
            self._pieces += 1
        if event.stop:
            reason = "length" if event.stop_type == "limit" else "stop"
            self.final = _final(reason, event.timings)
            return piece
        if self._repeats_itself(event.content):
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
    """Reads ``/v1/chat/completions``; tool calls are put together and come with ``final``."""

    abandoned = False

    def __init__(self, *, logprobs: bool = False, top_logprobs: int = 0) -> None:
        self.final: Final | None = None
        self._top = top_logprobs if logprobs else 0
        self._calls: dict[int, _ToolCallText] = {}

    def feed(self, payload: bytes) -> Piece | None:
        """Raises RunnerError for an error event and for what is not an event."""
        if payload == b"[DONE]":
            return None
        try:
            event = _decode_chat(payload)
        except msgspec.DecodeError as error:
            raise _undecodable("llama-server chat response", error) from error
        if event.error is not None:
            raise RunnerError(f"llama-server chat error: {_error_text(event.error)}")
        if not event.choices:
            return None
        choice = event.choices[0]
        delta = choice.delta
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._calls.setdefault(call.index, _ToolCallText()).add(call)
        logprobs = choice.logprobs.content if choice.logprobs else None
        piece = None
        if delta.content or delta.reasoning_content or logprobs:
            piece = Piece(
                delta.content or "", delta.reasoning_content or "", _logprobs(logprobs, self._top)
            )
        if choice.finish_reason is not None:
            reason = "length" if choice.finish_reason == "length" else "stop"
            self.final = _final(reason, event.timings)
            self.final.tool_calls = [
                self._calls[index].call(position)
                for position, index in enumerate(sorted(self._calls))
            ] or None
        return piece


class _ToolCallText:
    """The pieces of one tool call."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = ""

    def add(self, delta: _ToolCallDelta) -> None:
        self.id += delta.id or ""
        if delta.function is not None:
            self.name += delta.function.name or ""
            self.arguments += delta.function.arguments or ""

    def call(self, index: int) -> ToolCall:
        """Raises RunnerError when the model wrote arguments that are no JSON object."""
        arguments: dict[str, Any] = {}
        if self.arguments.strip():
            try:
                arguments = msgspec.json.decode(self.arguments, type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise RunnerError(
                    f'llama-server returned invalid tool call arguments for "{self.name}": {error}'
                ) from error
        return ToolCall(
            id=self.id,
            function=ToolCallFunction(index=index, name=self.name, arguments=arguments),
        )


def _final(reason: str, timings: _Timings | None) -> Final:
    t = timings or _Timings()
    return Final(
        reason,
        prompt_eval_count=t.cache_n + t.prompt_n,
        prompt_eval_duration=int(t.prompt_ms * 1e6),
        eval_count=t.predicted_n,
        eval_duration=int(t.predicted_ms * 1e6),
    )


def _logprobs(entries: list[_Probability] | None, top: int) -> list[Logprob] | None:
    if not entries:
        return None
    return [
        Logprob(
            token=e.token,
            logprob=_value(e),
            bytes=list(e.token.encode()) or None,
            top_logprobs=[
                TopLogprob(token=t.token, logprob=_value(t), bytes=list(t.token.encode()) or None)
                for t in (e.top_logprobs or e.top_probs or [])[:top]
            ]
            or None
            if top
            else None,
        )
        for e in entries
    ]


def _value(entry: _Probability) -> float:
    return entry.logprob if entry.logprob else entry.prob


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("message", error))
    return str(error)


def _undecodable(what: str, error: Exception) -> RunnerError:
    return RunnerError(f"error unmarshalling {what}: {error}")
