"""Bodies of the runner's requests: ``/completion`` and ``/v1/chat/completions``. Pure.

Source: runners-and-scheduling.md 3.3 to 3.6 and 3.11, prompting.md 1.7 and 1.9.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from ollamad.errors import OllamadError, quoted
from ollamad.prompting.image_tags import marked
from ollamad.prompting.media import media_type
from ollamad.scheduler.options import Options
from ollamad.wire import Message, Think, Tool

#: A generation never exceeds this many contexts, whatever ``num_predict`` says.
CONTEXTS_PER_ANSWER = 10


def predict_limit(num_predict: int, num_ctx: int) -> int:
    """``n_predict`` of a request: 0 and negative mean as much as allowed (3.1.2, 3.3)."""
    if num_ctx <= 0:
        return num_predict or -1
    bound = CONTEXTS_PER_ANSWER * num_ctx
    return num_predict if 0 < num_predict <= bound else bound


def sampling(options: Options, num_ctx: int) -> dict[str, Any]:
    """The sampling fields that both endpoints share.

    Values that llama.cpp refuses are translated: ``repeat_last_n`` -1 is the whole context, other
    negatives are 0; ``num_keep`` below -1 is -1.
    """
    last_n = options.repeat_last_n
    if last_n < 0:
        last_n = num_ctx if last_n == -1 else 0
    return {
        "n_predict": predict_limit(options.num_predict, num_ctx),
        "n_keep": max(options.num_keep, -1),
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "stop": list(options.stop),
        "repeat_penalty": options.repeat_penalty,
        "repeat_last_n": last_n,
        "frequency_penalty": options.frequency_penalty,
        "presence_penalty": options.presence_penalty,
        "typical_p": options.typical_p or 1.0,
        "seed": options.seed,
    }


class Format(msgspec.Struct, frozen=True):
    """A checked ``format``: the JSON Schema text of the client, or ``None`` for any object."""

    schema: bytes | None


def checked_format(raw: msgspec.Raw | None) -> Format | None:
    """``format`` of a request, or ``None`` for unconstrained.

    Raises OllamadError (500, the contract's text) for anything but absent, ``null``, ``""``,
    ``"json"`` and an object.
    """
    if raw is None:
        return None
    text = bytes(raw).strip()
    if text in (b"", b"null", b'""'):
        return None
    if text.startswith(b"{"):
        return Format(text)
    if text.startswith(b'"') and json.loads(text) == "json":
        return Format(None)
    raise OllamadError(
        f'invalid format: {quoted(text.decode())}; expected "json" or a valid JSON Schema object'
    )


_ANY_OBJECT = b'{"type":"object"}'

#: For runners that constrain with llguidance; others do not know the key. Without it a small model
#: can fall into writing blanks for ever, for JSON allows any number of them; and one keyword that
#: it does not know, as ``not`` or another ``format``, would cost the answer all constraints.
_GUIDANCE = (
    b'"x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": ",'
    b'"lenient":true,"coerce_one_of":true}'
)


def _schema(fmt: Format) -> msgspec.Raw:
    """The schema for the runner, with the spacing that an answer shall have and what to do
    with keywords that the runner does not know."""
    text = fmt.schema or _ANY_OBJECT
    if b'"x-guidance"' in text:
        return msgspec.Raw(text)
    # Without a keyword any value would do; a format is for objects (http-api.md 8.5).
    inside = text.strip()[1:-1].strip() or _ANY_OBJECT[1:-1]
    return msgspec.Raw(b"{" + inside + b"," + _GUIDANCE + b"}")


def completion_body(
    prompt: str | list[int],
    options: Options,
    *,
    num_ctx: int,
    fmt: Format | None,
    media: Sequence[bytes] = (),
    media_marker: str = "",
    preserved_tokens: Sequence[str] = (),
    logprobs: bool = False,
    top_logprobs: int = 0,
) -> bytes:
    """The body of ``POST /completion``.

    ``media``: bytes in the order of their ``[img-N]`` tags; each tag becomes ``media_marker``.
    ``preserved_tokens``: special tokens that stay in the text of the answer.
    """
    body: dict[str, Any] = {"prompt": prompt, "stream": True, "cache_prompt": True}
    if media:
        text, media = marked(str(prompt), media, media_marker)
        body["prompt"] = {
            "prompt_string": text,
            "multimodal_data": [base64.b64encode(item).decode() for item in media],
        }
    body.update(sampling(options, num_ctx))
    if not options.stop:
        del body["stop"]
    if fmt is not None:
        body["json_schema"] = _schema(fmt)
    if preserved_tokens:
        body["preserved_tokens"] = list(preserved_tokens)
    if logprobs:
        body["n_probs"] = max(top_logprobs, 1)
    return msgspec.json.encode(body)


def chat_body(
    messages: Sequence[Message],
    options: Options,
    *,
    num_ctx: int,
    think: Think | None,
    tools: Sequence[Tool] | None = None,
    fmt: Format | None = None,
    logprobs: bool = False,
    top_logprobs: int = 0,
) -> bytes:
    """The body of ``POST /v1/chat/completions``."""
    body: dict[str, Any] = {
        "messages": [message_for_runner(m) for m in messages],
        "stream": True,
        "cache_prompt": True,
        **sampling(options, num_ctx),
    }
    body.update(_template_fields(think, tools))
    if fmt is not None:
        body["response_format"] = _response_format(fmt)
    if logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = max(top_logprobs, 1)
    return msgspec.json.encode(body)


def template_body(
    messages: Sequence[Message],
    *,
    think: Think | None = None,
    tools: Sequence[Tool] | None = None,
    fmt: Format | None = None,
) -> bytes:
    """The body of ``POST /apply-template`` and of the token count: what the template reads.

    With ``fmt`` the runner also checks the schema, which ``/completion`` does not: it would drop
    one that it cannot compile and answer without any constraint.
    """
    body: dict[str, Any] = {"messages": [message_for_runner(m) for m in messages]}
    body.update(_template_fields(think, tools))
    if fmt is not None:
        body["response_format"] = _response_format(fmt)
    return msgspec.json.encode(body)


def _response_format(fmt: Format) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "schema", "schema": _schema(fmt)}}


def _template_fields(think: Think | None, tools: Sequence[Tool] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if tools:
        fields["tools"] = list(tools)
    if think is not None:
        kwargs: dict[str, Any] = {"enable_thinking": think is not False}
        if isinstance(think, str):
            kwargs["reasoning_effort"] = think
        fields["chat_template_kwargs"] = kwargs
    return fields


def message_for_runner(message: Message) -> dict[str, Any]:
    """One message in the form that llama-server reads (3.11).

    Earlier reasoning goes along as ``reasoning_content``: templates that want it find it there.
    """
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        parts: list[dict[str, Any]] = []
        if message.content:
            parts.append({"type": "text", "text": message.content})
        parts.extend(_media_part(item) for item in message.images)
        out["content"] = parts
    if message.thinking:
        out["reasoning_content"] = message.thinking
    if message.tool_call_id:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_name:
        out["name"] = message.tool_name
    if message.tool_calls:
        out["tool_calls"] = [
            {
                **({"id": call.id} if call.id else {}),
                "index": call.function.index,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": msgspec.json.encode(call.function.arguments).decode(),
                },
            }
            for call in message.tool_calls
        ]
    return out


def _media_part(item: bytes) -> dict[str, Any]:
    kind = media_type(item)
    data = base64.b64encode(item).decode()
    if kind in ("wav", "mp3"):
        return {"type": "input_audio", "input_audio": {"data": data, "format": kind}}
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
