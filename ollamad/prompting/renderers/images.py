"""Where a renderer writes the tags of images (prompting.md 5.4, renderers-and-parsers 1.4).

Numbers follow the position in the message list, whatever a renderer leaves out or moves: they must
match the list of images that is sent along.
"""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.wire import Message

_PLACE = "[img]"
_TAGGED = "[img-"


def tagged_contents(
    messages: Sequence[Message], contents: Sequence[str] | None = None, *, tag: bool
) -> list[str]:
    """The content of each message with the tags of its images; unchanged when ``tag`` is false.

    ``contents``: what to use in place of the messages' own contents, one for each.
    """
    texts = [m.content for m in messages] if contents is None else list(contents)
    if not tag:
        return texts
    first = 0
    for index, message in enumerate(messages):
        count = len(message.images or ())
        texts[index] = _tagged(texts[index], first, count)
        first += count
    return texts


def _tagged(content: str, first: int, count: int) -> str:
    """``[img]`` becomes the tags in order; tags without such a place go in front."""
    if count == 0 or _TAGGED in content:  # tags that the client has written itself count
        return content
    pieces = content.split(_PLACE)
    placed = min(len(pieces) - 1, count)
    text = pieces[0]
    for index, piece in enumerate(pieces[1:]):
        text += (f"[img-{first + index}]" if index < placed else _PLACE) + piece
    prefix = "".join(f"[img-{n}]" for n in range(first + placed, first + count))
    gap = " " if prefix and text and not text[0].isspace() else ""
    return prefix + gap + text
