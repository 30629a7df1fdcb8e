"""Messages to a prompt with the runner's own chat template: measuring, cutting, rendering.

Source: prompting.md 5.3 and 5.4, http-api.md 8.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ollamad.errors import RunnerError
from ollamad.models.catalog import KnownModel
from ollamad.prompting.image_tags import tagged, without_images
from ollamad.prompting.messages import Cut, image_count, length_bound
from ollamad.prompting.requests import Format, template_body
from ollamad.prompting.schema_check import check_schema
from ollamad.runners.process import Runner
from ollamad.scheduler.lease import Lease
from ollamad.wire import Message, Think, Tool


async def fitted(
    lease: Lease[Runner],
    model: KnownModel,
    messages: list[Message],
    *,
    think: Think | None,
    truncate: bool | None,
    tools: Sequence[Tool] | None = None,
) -> tuple[list[Message], int]:
    """The messages that fit the context, and how many tokens were dropped with the others.

    Oldest messages go first; system messages and the last message stay. ``truncate`` False keeps
    everything. A conversation that is plainly short is not measured.
    """
    if truncate is False or len(messages) <= 1:
        return messages, 0
    tools_bytes = len(msgspec.json.encode(tools)) if tools else 0
    bound = length_bound(messages, template=model.chat_template, tools_bytes=tools_bytes)
    if bound <= lease.num_ctx and not image_count(messages):
        return messages, 0
    cut = Cut(messages, lease.num_ctx)
    first = True
    while not cut.done:
        try:
            count = await lease.runner.client.count_input_tokens(
                template_body(cut.candidate, think=think, tools=tools)
            )
        except RunnerError:
            if first:
                raise
            count = None  # a template may refuse a conversation that starts in the middle
        cut.measured(count)
        first = False
    return cut.kept, cut.dropped_tokens


async def rendered(
    lease: Lease[Runner],
    messages: list[Message],
    *,
    think: Think | None,
    tools: Sequence[Tool] | None = None,
) -> tuple[str, list[bytes]]:
    """What the runner's chat template makes of the messages, and their media, each of which is
    tagged ``[img-N]`` in the text."""
    messages, media = tagged(messages)
    body = template_body(without_images(messages), think=think, tools=tools)
    return await lease.runner.client.apply_template(body), media


async def check_format(lease: Lease[Runner], fmt: Format | None) -> None:
    """Raises BadRequest or RunnerError (400) for a schema that the runner cannot compile."""
    check_schema(fmt)
    if fmt is not None and fmt.schema is not None:
        nothing = Message(role="user", content="")
        await lease.runner.client.apply_template(template_body([nothing], fmt=fmt))
