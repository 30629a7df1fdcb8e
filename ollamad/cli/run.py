"""``run``: one answer, one vector, or a conversation (``cli.md`` 5)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from ollamad.cli.answer import timings
from ollamad.cli.bodies import body
from ollamad.cli.chatting import AnswerWriter, Wishes, is_multimodal, wishes
from ollamad.cli.client import Client
from ollamad.cli.commands import Invocation
from ollamad.cli.errors import ServerError, Unauthorized
from ollamad.cli.flags import Parsed
from ollamad.cli.pull import is_terminal, keep_stub, show_or_pull
from ollamad.cli.show import refuse_image_models
from ollamad.errors import OllamadError, UsageError, quoted
from ollamad.wire import EmbedRequest, GenerateRequest, GenerateResponse


def run(invocation: Invocation) -> int:
    """``run MODEL [PROMPT...]``."""
    client, parsed = invocation.client, invocation.parsed
    model = invocation.words[0]
    asked = wishes(parsed)
    pieces = _prompt_pieces(invocation.words[1:])
    try:
        model, shown = show_or_pull(client, model, insecure=parsed.switch("insecure"))
        keep_stub(client, model)
        asked = asked.for_model(shown)
        if "embedding" in shown.capabilities:
            _embed(client, model, " ".join(pieces), asked, parsed)
        else:
            refuse_image_models(shown)
            if not pieces and is_terminal(sys.stdin) and is_terminal(sys.stdout):
                from ollamad.cli.repl.loop import converse  # noqa: PLC0415

                converse(client, model, shown, asked)
            else:
                _generate(client, model, " ".join(pieces), asked, is_multimodal(shown))
    except Unauthorized as error:
        print_signin_notice(error)
    return 0


def _prompt_pieces(words: Sequence[str]) -> list[str]:
    """What stdin and the command line have of a prompt; an empty word counts, empty stdin not."""
    pieces = [_readable(word) for word in words]
    if sys.stdin is not None and not is_terminal(sys.stdin):
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
        if text:
            pieces.insert(0, text)
    return pieces


def _readable(word: str) -> str:
    """``word`` with bytes that are no UTF-8 replaced, since JSON cannot carry them."""
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def print_signin_notice(error: Unauthorized) -> None:
    from ollamad.cli.account import signin_text  # noqa: PLC0415 - seldom

    print(signin_text(error), end="")


def _generate(client: Client, model: str, prompt: str, asked: Wishes, multimodal: bool) -> None:
    images: list[bytes] | None = None
    text = prompt
    if multimodal:
        from ollamad.cli.media import extract  # noqa: PLC0415 - few models

        text, found = extract(prompt)
        images = found or None
    request = GenerateRequest(
        model=model,
        prompt=text,
        images=images,
        format=asked.format,
        options={},
        think=asked.think,
    )
    last: GenerateResponse | None = None
    writer = AnswerWriter(asked)
    try:
        with (
            writer.waiting(),
            client.stream(
                GenerateResponse, "/api/generate", body(request, asked.keep_alive)
            ) as events,
        ):
            for event in events:
                last = event
                writer.event(event.thinking, event.response, event.tool_calls)
    except KeyboardInterrupt:
        return  # leaving the stream has told the server
    if prompt:
        print("\n")
    if last is not None and last.done and asked.verbose:
        sys.stdout.flush()
        sys.stderr.write(timings(last))


def _embed(client: Client, model: str, text: str, asked: Wishes, parsed: Parsed) -> None:
    if not text:
        raise UsageError(
            f'embedding models require input text. Usage: ollama run {model} "your text here"'
        )
    request = EmbedRequest(
        model=model,
        input=text,
        truncate=parsed.switch("truncate") if "truncate" in parsed.given else None,
        dimensions=max(parsed.number("dimensions"), 0),
    )
    answer = client.call("POST", "/api/embed", body(request, asked.keep_alive))
    print(vector_text(answer))


def vector_text(answer: bytes) -> str:
    """The first vector of an answer of ``/api/embed`` as compact JSON. Pure."""
    from ollamad.cli.numbers import float32_json  # noqa: PLC0415

    try:
        found: Any = msgspec.json.decode(answer)["embeddings"]
        vector = found[0] if found else None
        if vector is None:
            raise OllamadError("no embeddings returned")
        return f"[{','.join(float32_json(float(number)) for number in vector)}]"
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ServerError(f"cannot read the server's answer: {quoted(str(error))}") from error
