"""``POST /api/embed`` and ``/api/embeddings`` behind the wire (http-api.md 11)."""

from __future__ import annotations

import math
import time
from array import array
from typing import Any, TypeAlias

import msgspec

from ollamad.errors import BadRequest, OllamadError, RunnerError
from ollamad.inference.run import forget_all_when_out_of_memory
from ollamad.inference.services import Services, check_runnable, check_template
from ollamad.models.catalog import KnownModel
from ollamad.runners.process import Runner
from ollamad.runners.protocol import INPUT_TOO_LONG
from ollamad.scheduler.lease import Lease, Waited
from ollamad.wire import EmbeddingRequest, EmbedRequest

#: Numbers as the runner has them: float32.
Vector: TypeAlias = "array[float]"


class Embedded(msgspec.Struct):
    """``vectors`` in the order of the inputs; durations in nanoseconds, 0 when nothing ran."""

    vectors: list[Vector]
    prompt_tokens: int = 0
    total_duration: int = 0
    load_duration: int = 0


def checked_input(value: Any) -> list[str]:
    """``input`` as a list of texts. Raises BadRequest for anything but text and lists of it."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise BadRequest("invalid input type")


async def embed(services: Services, request: EmbedRequest, waited: Waited) -> Embedded:
    """One unit vector for each input; ``waited`` is filled when there is a runner.

    Raises OllamadError; failures without a status are 400.
    """
    started = time.monotonic_ns()
    services.models.name_of(request.model, when_empty="model '' not found")
    texts = checked_input(request.input)
    model = await services.models.find_weights(request.model, when_empty="model '' not found")
    check_template(model)
    check_runnable(model)
    spec, _ = await services.prepare(model, request.options)
    async with services.scheduler.lease(
        spec, keep_alive=request.keep_alive, slot=bool(texts)
    ) as lease:
        waited.for_lease(lease)
        loaded = time.monotonic_ns()
        if not texts:
            return Embedded([])
        try:
            vectors, tokens = await _vectors(lease, model, texts, request, spec.options.num_batch)
        except RunnerError as error:
            forget_all_when_out_of_memory(services.scheduler, error)
            raise
    return Embedded(
        vectors,
        prompt_tokens=tokens,
        total_duration=time.monotonic_ns() - started,
        load_duration=loaded - started,
    )


async def legacy_embedding(services: Services, request: EmbeddingRequest, waited: Waited) -> Vector:
    """One vector as the runner gives it; every failure of the runner is a 500."""
    model = await services.models.find_weights(request.model, exact=True)
    check_template(model)
    check_runnable(model)
    spec, _ = await services.prepare(model, request.options)
    async with services.scheduler.lease(
        spec, keep_alive=request.keep_alive, slot=bool(request.prompt)
    ) as lease:
        waited.for_lease(lease)
        if not request.prompt:
            return array("f")
        try:
            vectors, _tokens = await _ask(lease, model, [request.prompt])
        except RunnerError as error:
            forget_all_when_out_of_memory(services.scheduler, error)
            raise OllamadError(error.message) from error
        except BadRequest as error:
            raise OllamadError(error.message) from error
    return vectors[0]


async def _vectors(
    lease: Lease[Runner],
    model: KnownModel,
    texts: list[str],
    request: EmbedRequest,
    num_batch: int,
) -> tuple[list[Vector], int]:
    limit = _token_limit(lease, model)
    fitted = await _cut(lease, model, texts, limit, truncate=request.truncate is not False)
    try:
        vectors, tokens = await _ask(lease, model, fitted)
    except RunnerError as error:
        if request.truncate is False or error.message != INPUT_TOO_LONG:
            raise
        # The batch may hold less than the context does.
        smaller = min(limit, max(1, num_batch - (lease.num_ctx - limit)))
        again = await _cut(lease, model, fitted, smaller, truncate=True)
        if again == fitted:
            raise BadRequest(
                "input exceeds maximum context length and cannot be truncated further"
            ) from error
        vectors, tokens = await _ask(lease, model, again)
    return [_unit(v, request.dimensions) for v in vectors], tokens


def _token_limit(lease: Lease[Runner], model: KnownModel) -> int:
    """Tokens of text that one input may have: the context without the tokens added to it."""
    return lease.num_ctx - model.special_tokens_of_input


async def _cut(
    lease: Lease[Runner], model: KnownModel, texts: list[str], limit: int, *, truncate: bool
) -> list[str]:
    """The texts, each within ``limit`` tokens. A text of fewer bytes than that needs no count."""
    out: list[str] = []
    for text in texts:
        if len(text.encode()) <= limit:
            out.append(text)
            continue
        tokens = await lease.runner.client.tokenize(text)
        if len(tokens) <= limit:
            out.append(text)
        elif not truncate:
            raise BadRequest(INPUT_TOO_LONG)
        elif limit <= 0:
            raise BadRequest("input after truncation exceeds maximum context length")
        else:
            out.append(await lease.runner.client.detokenize(tokens[:limit]))
    return out


async def _ask(
    lease: Lease[Runner], model: KnownModel, texts: list[str]
) -> tuple[list[Vector], int]:
    answer = await lease.runner.client.embed(texts, raw=model.raw_embeddings)
    if len(answer.vectors) != len(texts):
        raise BadRequest("empty embedding response")
    # A sum is finite exactly when all its terms are (float32 cannot overflow a float64).
    if not all(math.isfinite(sum(vector)) for vector in answer.vectors):
        raise BadRequest("embedding contains NaN or Inf values")
    return answer.vectors, answer.prompt_tokens


def _unit(vector: Vector, dimensions: int) -> Vector:
    """The vector (its first ``dimensions`` numbers) with length 1; a zero vector stays zero."""
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    length = math.hypot(*vector)
    return array("f", [x / length for x in vector]) if length else vector
