"""``POST /api/embed`` and ``/api/embeddings`` behind the wire (http-api.md 11)."""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec

from ollamad.errors import BadRequest, OllamadError, RunnerError
from ollamad.inference.run import (
    detokenize,
    forget_all_when_out_of_memory,
    tokenize,
)
from ollamad.inference.services import Services, check_runnable
from ollamad.models.catalog import KnownModel
from ollamad.scheduler.shell import Lease
from ollamad.wire import EmbeddingRequest, EmbedRequest

TOO_LONG = "the input length exceeds the context length"
_TOO_LONG_WORDS = (
    "too large",
    "context size",
    "context length",
    "physical batch size",
    "exceeds the available context",
)


class Embedded(msgspec.Struct):
    """``vectors`` in the order of the inputs; durations in nanoseconds, 0 when nothing ran."""

    vectors: list[list[float]]
    prompt_tokens: int = 0
    total_duration: int = 0
    load_duration: int = 0


class _Row(msgspec.Struct):
    embedding: list[float | None] = msgspec.field(default_factory=list)
    index: int = 0
    tokens_evaluated: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Row] = msgspec.field(default_factory=list)
    usage: _Usage = msgspec.field(default_factory=_Usage)


_decode_answer = msgspec.json.Decoder(_Answer).decode


def checked_input(value: Any) -> list[str]:
    """``input`` as a list of texts. Raises BadRequest for anything but text and lists of it."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise BadRequest("invalid input type")


async def embed(services: Services, request: EmbedRequest) -> Embedded:
    """One unit vector for each input. Raises OllamadError; failures without a status are 400."""
    started = time.monotonic_ns()
    services.models.refuse_cloud(request.model, when_empty="model '' not found")
    texts = checked_input(request.input)
    model = await services.models.find_weights(request.model, when_empty="model '' not found")
    check_runnable(model)
    spec, _ = services.prepare(model, request.options)
    async with services.scheduler.lease(
        spec, keep_alive=request.keep_alive, slot=bool(texts)
    ) as lease:
        loaded = time.monotonic_ns()
        if not texts:
            return Embedded([])
        try:
            vectors, tokens = await _vectors(services, lease, model, texts, request)
        except RunnerError as error:
            forget_all_when_out_of_memory(services.scheduler, error)
            raise
    return Embedded(
        vectors,
        prompt_tokens=tokens,
        total_duration=time.monotonic_ns() - started,
        load_duration=loaded - started,
    )


async def legacy_embedding(services: Services, request: EmbeddingRequest) -> list[float]:
    """One vector as the runner gives it; every failure of the runner is a 500."""
    model = await services.models.find_weights(request.model, exact=True)
    check_runnable(model)
    spec, _ = services.prepare(model, request.options)
    async with services.scheduler.lease(
        spec, keep_alive=request.keep_alive, slot=bool(request.prompt)
    ) as lease:
        if not request.prompt:
            return []
        try:
            vectors, _tokens = await _ask(lease, model, [request.prompt])
        except RunnerError as error:
            forget_all_when_out_of_memory(services.scheduler, error)
            raise OllamadError(error.message) from error
        except BadRequest as error:
            raise OllamadError(error.message) from error
    return vectors[0]


async def _vectors(
    services: Services, lease: Lease, model: KnownModel, texts: list[str], request: EmbedRequest
) -> tuple[list[list[float]], int]:
    limit = _token_limit(lease, model)
    fitted = await _cut(lease, model, texts, limit, truncate=request.truncate is not False)
    try:
        vectors, tokens = await _ask(lease, model, fitted)
    except BadRequest as error:
        if request.truncate is False or error.message != TOO_LONG:
            raise
        # The batch may hold less than the context does.
        smaller = min(limit, max(1, lease.num_batch - (lease.num_ctx - limit)))
        again = await _cut(lease, model, fitted, smaller, truncate=True)
        if again == fitted:
            raise BadRequest(
                "input exceeds maximum context length and cannot be truncated further"
            ) from error
        vectors, tokens = await _ask(lease, model, again)
    return [_unit(v, request.dimensions) for v in vectors], tokens


def _token_limit(lease: Lease, model: KnownModel) -> int:
    """Tokens of text that one input may have: the context without the tokens added to it."""
    return lease.num_ctx - model.adds_bos_to_embeddings - model.adds_eos_to_embeddings


async def _cut(
    lease: Lease, model: KnownModel, texts: list[str], limit: int, *, truncate: bool
) -> list[str]:
    """The texts, each within ``limit`` tokens. A text of fewer bytes than that needs no count."""
    out: list[str] = []
    for text in texts:
        if len(text.encode()) <= limit:
            out.append(text)
            continue
        tokens = await tokenize(lease, text)
        if len(tokens) <= limit:
            out.append(text)
        elif not truncate:
            raise BadRequest(TOO_LONG)
        elif limit <= 0:
            raise BadRequest("input after truncation exceeds maximum context length")
        else:
            out.append(await detokenize(lease, tokens[:limit]))
    return out


async def _ask(lease: Lease, model: KnownModel, texts: list[str]) -> tuple[list[list[float]], int]:
    body: dict[str, Any] = {"input": texts if len(texts) > 1 else texts[0]}
    if model.raw_embeddings:
        body["embd_normalize"] = -1
    status, data = await lease.runner.client.request_json(
        "/v1/embeddings", msgspec.json.encode(body)
    )
    if status >= 400:
        raise _refused(status, data)
    try:
        answer = _decode_answer(data)
    except msgspec.DecodeError as error:
        raise BadRequest(f"unmarshal embedding response: {error}") from error
    rows = sorted(answer.data, key=lambda row: row.index)
    if len(rows) != len(texts) or not all(row.embedding for row in rows):
        raise BadRequest("empty embedding response")
    vectors = [_finite(row.embedding) for row in rows]
    return vectors, answer.usage.prompt_tokens or sum(r.tokens_evaluated for r in rows)


def _finite(values: list[float | None]) -> list[float]:
    """llama-server writes numbers that are not finite as ``null``."""
    if None in values:
        raise BadRequest("embedding contains NaN or Inf values")
    return values  # type: ignore[return-value]


def _unit(vector: list[float], dimensions: int) -> list[float]:
    """The vector (its first ``dimensions`` numbers) with length 1; a zero vector stays zero."""
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    length = math.hypot(*vector)
    return [x / length for x in vector] if length else vector


def _refused(status: int, body: bytes) -> OllamadError:
    text = body.decode(errors="replace").strip()
    message = text
    try:
        error = msgspec.json.decode(body)["error"]
        message = error if isinstance(error, str) else str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        pass  # not the runner's envelope: the text itself is the message
    if any(words in f"{message} {text}".lower() for words in _TOO_LONG_WORDS):
        return BadRequest(TOO_LONG)
    return RunnerError(message.strip(), status=status)
