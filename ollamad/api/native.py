"""generate, chat, embed on the wire: decode, call the service, encode (http-api.md 9 to 11)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
import trio

from ollamad.api.cloud import forward_request
from ollamad.api.context import Context
from ollamad.api.encoding import (
    JSON,
    NDJSON,
    encode,
    encode_lines,
    float32_array,
    float64_array,
)
from ollamad.api.responses import (
    Response,
    encoded_response,
    json_response,
    stream_response,
    timed,
)
from ollamad.errors import OllamadError
from ollamad.inference import chat, generate
from ollamad.inference.embed import Embedded, embed, legacy_embedding
from ollamad.inference.remote import RemoteAnswer
from ollamad.inference.services import check_top_logprobs
from ollamad.scheduler.lease import Waited
from ollamad.wire import (
    ChatRequest,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
)

E = TypeVar("E", bound=msgspec.Struct)

#: Numbers of an embedding's answer that are printed in a millisecond or two.
_FEW_NUMBERS = 1024


async def post_generate(context: Context) -> Response:
    request = await context.decode(GenerateRequest)
    check_top_logprobs(request.top_logprobs)
    models = context.services.models
    cloud_model = models.cloud_model(request.model, when_empty="model '' not found")
    if cloud_model is not None:
        return await forward_request(context, request, cloud_model)
    waited = Waited()
    answer = await generate.generate(context.services, request, waited)
    return timed(await _answer(answer, request.stream, generate.whole), waited)


async def post_chat(context: Context) -> Response:
    request = await context.decode(ChatRequest)
    check_top_logprobs(request.top_logprobs)
    cloud_model = context.services.models.cloud_model(request.model)
    if cloud_model is not None:
        return await forward_request(context, request, cloud_model)
    waited = Waited()
    answer = await chat.chat(context.services, request, waited)
    return timed(await _answer(answer, request.stream, chat.whole), waited)


async def _answer(
    answer: E | AsyncGenerator[list[E], None] | RemoteAnswer,
    stream: bool | None,
    whole: Callable[[list[E]], E],
) -> Response:
    """One object is sent as it is; events are streamed, or put together for ``stream: false``."""
    if isinstance(answer, msgspec.Struct):
        return json_response(answer)
    if isinstance(answer, RemoteAnswer):
        # In the form of its stream whatever comes (17.3.4 and 17.3.5).
        form = JSON if stream is False else NDJSON
        return await stream_response(
            answer.events, content_type=form, early_type=form, error_item=_bare_error
        )
    # Until its first, empty batch an answer fails like any request, whatever its form (7.5).
    await anext(answer)
    if stream is False:
        async with aclosing(answer):
            return json_response(whole([event async for batch in answer for event in batch]))
    return await stream_response(_lines(answer))


def _bare_error(error: OllamadError) -> bytes:
    return encode(error.members)


async def _lines(events: AsyncGenerator[list[Any], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for batch in events:
            yield encode_lines(batch)


async def post_embed(context: Context) -> Response:
    request = await context.decode(EmbedRequest)
    models = context.services.models
    cloud_model = models.cloud_model(request.model, when_empty="model '' not found")
    if cloud_model is not None:
        return await forward_request(context, request, cloud_model)
    waited = Waited()
    embedded = await embed(context.services, request, waited)
    if sum(map(len, embedded.vectors)) <= _FEW_NUMBERS:
        body = _embeddings(request.model, embedded)
    else:
        # Printing many numbers takes long; other answers go on meanwhile.
        body = await trio.to_thread.run_sync(_embeddings, request.model, embedded)
    return timed(encoded_response(body), waited)


def _embeddings(model: str, embedded: Embedded) -> bytes:
    return encode(
        EmbedResponse(
            model=model,
            embeddings=[msgspec.Raw(float32_array(vector)) for vector in embedded.vectors],
            total_duration=embedded.total_duration,
            load_duration=embedded.load_duration,
            prompt_eval_count=embedded.prompt_tokens,
        )
    )


async def post_embeddings(context: Context) -> Response:
    request = await context.decode(EmbeddingRequest)
    cloud_model = context.services.models.cloud_model(request.model)
    if cloud_model is not None:
        return await forward_request(context, request, cloud_model)
    waited = Waited()
    vector = await legacy_embedding(context.services, request, waited)
    answer = EmbeddingResponse(embedding=msgspec.Raw(float64_array(vector)))
    return timed(json_response(answer), waited)
