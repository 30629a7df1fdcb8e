"""A model's prompt of a conversation: made by its named renderer, or by its Go template. Pure.

Source: prompting.md 1.4, 1.5, 5.2 and 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ollamad.errors import BadRequest
from ollamad.prompting.day import Day
from ollamad.prompting.image_tags import tagged
from ollamad.prompting.renderers.conversation import Conversation, Renderer
from ollamad.prompting.template import Template
from ollamad.wire import Message, Think, Tool


@dataclass(frozen=True, slots=True)
class Prompter:
    """Of one model, on one day. ``single_image``: one image a message (family ``mllama``)."""

    template: Template
    renderer: Renderer | None = None
    single_image: bool = False
    today: Day | None = None

    def measured(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None, think: Think | None
    ) -> str:
        """The text whose tokens count against the context: the prompt without image tags."""
        if self.renderer is not None:
            return self.renderer.render(
                Conversation(messages, tools or (), think, False, self.today)
            )
        return self.template.render(messages, tools=tools, think=think, today=self.today)

    def prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None, think: Think | None
    ) -> tuple[str, list[bytes]]:
        """The prompt, and the media in the order of their ``[img-N]`` tags in it.

        Raises BadRequest for several images where one is allowed, OllamadError (500) for a template
        or a renderer that fails.
        """
        if self.single_image and any(len(m.images or ()) > 1 for m in messages):
            raise BadRequest(
                "this model only supports one image while more than one image requested"
            )
        if self.renderer is not None:
            places = self.renderer.places_images
            text = self.renderer.render(
                Conversation(messages, tools or (), think, places, self.today)
            )
            media = [item for m in messages for item in m.images or ()] if places else []
            return text, media
        with_tags, media = tagged(messages)
        return self.template.render(with_tags, tools=tools, think=think, today=self.today), media
