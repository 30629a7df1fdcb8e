"""Where images stand in a conversation that a template renders (prompting.md 5.4). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.wire import Message

#: What a client writes where an image belongs.
PLACE = "[img]"


def tag(number: int) -> str:
    """The text that stands for image ``number``, counted from 0 over the whole conversation."""
    return f"[img-{number}]"


def tagged(messages: Sequence[Message]) -> tuple[list[Message], list[bytes]]:
    """Copies of the messages with their images' tags in the text, and the images in tag order.

    An image takes the first ``[img]`` that is left in its message, or else its tag goes in front
    of the content. The copies keep their images: templates ask how many there are.
    """
    media: list[bytes] = []
    out: list[Message] = []
    for message in messages:
        if not message.images:
            out.append(message)
            continue
        prefix, content = "", message.content
        for item in message.images:
            mark = tag(len(media))
            if PLACE in content:
                content = content.replace(PLACE, mark, 1)
            else:
                prefix += mark
            media.append(item)
        out.append(
            Message(
                role=message.role,
                content=prefix + content,
                thinking=message.thinking,
                images=message.images,
                tool_calls=message.tool_calls,
                tool_name=message.tool_name,
                tool_call_id=message.tool_call_id,
            )
        )
    return out, media


def marked(text: str, media: Sequence[bytes], marker: str) -> tuple[str, list[bytes]]:
    """The text with the runner's ``marker`` for the first tag of each image, and the images in the
    order of their markers.

    A runner matches them by order alone, and a tag that was put in front may stand before one with
    a smaller number. An image without a tag comes last; the runner then refuses the request.
    """
    places = sorted(
        (at if at >= 0 else len(text), number)
        for number in range(len(media))
        for at in (text.find(tag(number)),)
    )
    parts, end = [], 0
    for at, number in places:
        if at < len(text):
            parts += [text[end:at], marker]
            end = at + len(tag(number))
    return "".join(parts) + text[end:], [media[number] for _, number in places]


def without_images(messages: Sequence[Message]) -> list[Message]:
    """The messages without their images, for a chat template that sees only the tags in the text:
    given the images too it would put marks of its own beside them."""
    return [
        Message(
            role=m.role,
            content=m.content,
            thinking=m.thinking,
            tool_calls=m.tool_calls,
            tool_name=m.tool_name,
            tool_call_id=m.tool_call_id,
        )
        if m.images
        else m
        for m in messages
    ]
