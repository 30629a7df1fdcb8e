"""llama-server's JSON, decoded once: stream events, templates, tokens, embeddings, properties.

Pure. Spec: runners-and-scheduling 3.8 to 3.13. Only fields that someone reads are declared; msgspec
skips the others without building objects for them.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from array import array
from typing import Any, TypeVar

import msgspec

from ollamad.errors import RunnerError

# --- Streams -------------------------------------------------------------------------------------


class Timings(msgspec.Struct, gc=False):
    """Counts of tokens and milliseconds, on the last event of a stream (3.9)."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    draft_n: int = 0
    draft_n_accepted: int = 0

    @property
    def prompt_eval_count(self) -> int:
        """Tokens of the prompt, those found in the cache included."""
        return self.cache_n + self.prompt_n

    @property
    def prompt_eval_ns(self) -> int:
        return int(self.prompt_ms * 1e6)

    @property
    def eval_count(self) -> int:
        return self.predicted_n

    @property
    def eval_ns(self) -> int:
        return int(self.predicted_ms * 1e6)


class Alternative(msgspec.Struct, gc=False):
    """One candidate for a token: ``prob`` is set instead of ``logprob`` after sampling."""

    token: str = ""
    logprob: float | None = 0.0
    prob: float | None = 0.0

    @property
    def value(self) -> float:
        """3.10: a log probability, or the probability as it is when only that is given."""
        return self.logprob or self.prob or 0.0


class TokenProbability(Alternative, gc=False):
    """The chosen token with its alternatives."""

    top_logprobs: list[Alternative] | None = None
    top_probs: list[Alternative] | None = None

    @property
    def alternatives(self) -> list[Alternative]:
        return self.top_logprobs or self.top_probs or []


class ErrorDetail(msgspec.Struct, gc=False):
    message: str = ""
    type: str = ""
    code: int | str | None = None


class CompletionEvent(msgspec.Struct, gc=False):
    """One event of ``/completion`` (3.8); also the answer when ``stream`` is false."""

    content: str | None = ""
    stop: bool = False
    stop_type: str | None = ""
    completion_probabilities: list[TokenProbability] | None = None
    timings: Timings | None = None
    truncated: bool = False
    error: ErrorDetail | str | None = None

    @property
    def done_reason(self) -> str:
        return "length" if self.stop_type == "limit" else "stop"


class FunctionPiece(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCallPiece(msgspec.Struct, gc=False):
    """A fragment of the tool call with number ``index``: its texts are to be concatenated."""

    index: int = 0
    id: str | None = None
    function: FunctionPiece | None = None


class Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallPiece] | None = None


class ChoiceLogprobs(msgspec.Struct, gc=False):
    content: list[TokenProbability] | None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta | None = None
    #: Takes the place of ``delta`` when the request did not stream.
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class ChatEvent(msgspec.Struct, gc=False):
    """One event of ``/v1/chat/completions`` (3.11)."""

    choices: list[Choice] = []
    timings: Timings | None = None
    error: ErrorDetail | str | None = None


_completion = msgspec.json.Decoder(CompletionEvent)
_chat = msgspec.json.Decoder(ChatEvent)


def decode_completion(line: bytes) -> CompletionEvent:
    """Raises ``RunnerError`` for bad JSON and for an error event (3.8 items 6 and 7)."""
    try:
        event = _completion.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunnerError(
            f"error unmarshalling llama-server response: {_complaint(line, error)}"
        ) from error
    if event.error is not None:
        raise RunnerError(error_message(event.error))
    return event


def decode_chat(line: bytes) -> ChatEvent:
    """Raises ``RunnerError`` for bad JSON and for an error event (3.8 items 6 and 7)."""
    try:
        event = _chat.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunnerError(
            f"error unmarshalling llama-server chat response: {_complaint(line, error)}"
        ) from error
    if event.error is not None:
        raise RunnerError(f"llama-server chat error: {error_message(event.error)}")
    return event


def error_message(error: ErrorDetail | str) -> str:
    """The words of an ``error`` member."""
    return error if isinstance(error, str) else error.message


def _complaint(line: bytes, error: msgspec.DecodeError | UnicodeDecodeError) -> str:
    """What is wrong with ``line``, in the words of Go's decoder, which clients know."""
    try:
        json.loads(line)
    except UnicodeDecodeError:
        return str(error)
    except json.JSONDecodeError as found:
        text = line.decode("utf-8", "replace")
        if found.pos >= len(text.rstrip()):
            return "unexpected end of JSON input"
        where = {
            "Expecting property name enclosed in double quotes": (
                "looking for beginning of object key string"
            ),
            "Expecting value": "looking for beginning of value",
            "Expecting ':' delimiter": "after object key",
            "Extra data": "after top-level value",
        }.get(found.msg)
        if where is not None:
            return f"invalid character '{text[found.pos]}' {where}"
    return str(error)


# --- Templates and tokens ------------------------------------------------------------------------


class _Prompt(msgspec.Struct):
    prompt: str = ""
    error: ErrorDetail | str | None = None


class _Tokens(msgspec.Struct, gc=False):
    tokens: list[int]


class _Content(msgspec.Struct):
    content: str


class _InputTokens(msgspec.Struct):
    input_tokens: int


def tokenize_request(text: str, *, add_special: bool = False) -> bytes:
    """Body of ``POST /tokenize``."""
    body: dict[str, Any] = {"content": text}
    if add_special:
        body["add_special"] = True
    return msgspec.json.encode(body)


def detokenize_request(tokens: list[int]) -> bytes:
    """Body of ``POST /detokenize``."""
    return msgspec.json.encode({"tokens": tokens})


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace").strip()


_T = TypeVar("_T")


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunnerError(f"error reading llama-server response: {error}") from error


def template_result(status: int, body: bytes) -> str:
    """The prompt of ``/apply-template`` (3.12). Raises ``RunnerError``."""
    if status >= 400:
        raise RunnerError(_text(body), status=status)
    answer = _decode(body, _Prompt)
    if answer.error is not None:
        raise RunnerError(f"llama-server template error: {error_message(answer.error)}")
    return answer.prompt


def tokenize_result(status: int, body: bytes) -> list[int]:
    """The tokens of ``/tokenize`` (3.12). Raises ``RunnerError``."""
    if status >= 400:
        raise RunnerError(f"tokenize error: {_text(body)}")
    return _decode(body, _Tokens).tokens


def detokenize_result(status: int, body: bytes) -> str:
    """The text of ``/detokenize`` (3.12). Raises ``RunnerError``."""
    if status >= 400:
        raise RunnerError(f"detokenize error: {_text(body)}")
    return _decode(body, _Content).content


def input_tokens_result(status: int, body: bytes) -> int:
    """The count of ``/v1/chat/completions/input_tokens`` (3.5). Raises ``RunnerError``."""
    if status >= 400:
        raise RunnerError(_text(body), status=status)
    return _decode(body, _InputTokens).input_tokens


# --- Embeddings ----------------------------------------------------------------------------------

_TOO_LONG = (
    "too large",
    "context size",
    "context length",
    "physical batch size",
    "exceeds the available context",
)

INPUT_TOO_LONG = "the input length exceeds the context length"


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Embedding(msgspec.Struct, gc=False):
    #: Base64 of float32, a list of numbers, or a list of such lists.
    embedding: str | list[Any] = ""
    index: int = 0
    tokens_evaluated: int = 0


class _Embeddings(msgspec.Struct):
    data: list[_Embedding] = []
    usage: _Usage | None = None


_embeddings = msgspec.json.Decoder(_Embeddings | list[_Embedding])


class Embeddings(msgspec.Struct):
    """Vectors in the order of the inputs, and the tokens that all inputs had together."""

    vectors: list[array[float]]
    prompt_tokens: int


def embeddings_request(inputs: list[str] | list[list[int]], *, raw: bool = False) -> bytes:
    """Body of ``POST /v1/embeddings`` for one or many inputs (texts, or lists of tokens).

    ``raw``: the model's vectors as they are (3.13, legacy models). Vectors are asked for in base64:
    they are float32 in the runner, and so cost a tenth of printing and parsing decimals.
    """
    body: dict[str, Any] = {"input": inputs, "encoding_format": "base64"}
    if raw:
        body["embd_normalize"] = -1
    return msgspec.json.encode(body)


def embeddings_result(status: int, body: bytes) -> Embeddings:
    """Reads the answer of ``/v1/embeddings``, whatever of its forms it has (3.13).

    Raises ``RunnerError``: status 400 and ``INPUT_TOO_LONG`` for an input that does not fit, else
    the runner's own status and message.
    """
    if status >= 400:
        raise _embedding_error(status, body)
    try:
        answer = _embeddings.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunnerError(f"unmarshal embedding response: {error}", status=400) from error
    if isinstance(answer, list):
        rows, tokens = answer, 0
    else:
        rows = answer.data
        tokens = answer.usage.prompt_tokens if answer.usage is not None else 0
        tokens = tokens or sum(row.tokens_evaluated for row in rows)
    rows.sort(key=lambda row: row.index)
    vectors = [_vector(row.embedding) for row in rows]
    if not vectors or not all(vectors):
        raise RunnerError("empty embedding response", status=400)
    return Embeddings(vectors, tokens)


def _vector(value: str | list[Any]) -> array[float]:
    if isinstance(value, str):
        try:
            return array("f", base64.b64decode(value))
        except (binascii.Error, ValueError) as error:
            raise RunnerError(f"unmarshal embedding response: {error}", status=400) from error
    flat = value[0] if value and isinstance(value[0], list) else value
    try:
        # The runner writes numbers that are not finite as null.
        return array("f", [math.nan if number is None else number for number in flat])
    except TypeError as error:
        raise RunnerError(f"unmarshal embedding response: {error}", status=400) from error


def _embedding_error(status: int, body: bytes) -> RunnerError:
    text = message = _text(body)
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        message = error
    elif isinstance(error, dict) and isinstance(error.get("message"), str):
        message = error["message"]
    haystack = f"{message}\n{text}".lower()
    if any(hint in haystack for hint in _TOO_LONG):
        return RunnerError(INPUT_TOO_LONG, status=400)
    return RunnerError(message.strip(), status=status)


# --- Properties ----------------------------------------------------------------------------------


class _Defaults(msgspec.Struct):
    n_ctx: int = 0


class Props(msgspec.Struct):
    """``GET /props``: what the runner really has (section 6)."""

    total_slots: int = 0
    default_generation_settings: _Defaults = msgspec.field(default_factory=_Defaults)
    modalities: dict[str, bool] = {}
    media_marker: str = ""
    chat_template: str = ""
    chat_template_caps: dict[str, Any] = {}
    build_info: str = ""
    model_path: str = ""

    @property
    def n_ctx(self) -> int:
        """Tokens that one slot may use."""
        return self.default_generation_settings.n_ctx


def props_result(status: int, body: bytes) -> Props:
    """Raises ``RunnerError``."""
    if status >= 400:
        raise RunnerError(_text(body), status=status)
    return _decode(body, Props)
