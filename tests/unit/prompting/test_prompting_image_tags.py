"""Where images stand in a conversation that a template renders (prompting.md 5.4)."""

import pytest

from ollamad.prompting.image_tags import marked, tagged, without_images
from ollamad.wire import Message, ToolCall, ToolCallFunction


def user(content: str, images: int = 0) -> Message:
    return Message(role="user", content=content, images=[b"%d" % i for i in range(images)] or None)


@pytest.mark.parametrize(
    ("messages", "contents"),
    [
        ([user("hi")], ["hi"]),
        (
            [user("Compare these two pictures of hotdogs", 2)],
            ["[img-0][img-1]Compare these two pictures of hotdogs"],
        ),
        ([user("You're a test, Harry! [img]", 1)], ["You're a test, Harry! [img-0]"]),
        ([user("a [img] b", 2)], ["[img-1]a [img-0] b"]),
        ([user("compare [img] and [img]", 2)], ["compare [img-0] and [img-1]"]),
        ([user("[img] [img]", 1)], ["[img-0] [img]"]),
        ([user("one", 1), user("none"), user("", 2)], ["[img-0]one", "none", "[img-1][img-2]"]),
        ([user("no image [img]")], ["no image [img]"]),
        ([user("many", 11)], ["".join(f"[img-{i}]" for i in range(11)) + "many"]),
    ],
)
def test_tags(messages: list[Message], contents: list[str]) -> None:
    out, media = tagged(messages)
    assert [m.content for m in out] == contents
    assert media == [item for m in messages for item in m.images or ()]
    assert [m.images for m in out] == [m.images for m in messages]


@pytest.mark.parametrize(
    ("text", "marked_text", "order"),
    [
        ("no tags", "no tags", ""),
        ("[img-0][img-1]Compare", "<M><M>Compare", "01"),
        ("[img-1]a [img-0] b", "<M>a <M> b", "10"),
        ("[img-2] [img-0] [img-1]", "<M> <M> <M>", "201"),
        ("[img-0] [img-0]", "<M> [img-0]", "0"),
        ("a [img-1]", "a <M>", "10"),
        ("forgotten", "forgotten", "01"),
        ("[img-7]", "[img-7]", "0"),
        ("".join(f"[img-{i}]" for i in range(10, -1, -1)), "<M>" * 11, "A9876543210"),
    ],
)
def test_the_runner_gets_images_in_the_order_of_its_markers(
    text: str, marked_text: str, order: str
) -> None:
    media = [b"%X" % i for i in range(len(order))]
    assert marked(text, media, "<M>") == (marked_text, [c.encode() for c in order])


def test_everything_else_stays() -> None:
    call = ToolCall(function=ToolCallFunction(index=0, name="f", arguments={}))
    message = Message(
        role="tool",
        content="see",
        images=[b"x"],
        thinking="t",
        tool_calls=[call],
        tool_name="n",
        tool_call_id="i",
    )
    ((out,), _) = tagged([message])
    (bare,) = without_images([out])
    for made, images in ((out, [b"x"]), (bare, None)):
        assert made == Message(
            role="tool",
            content="[img-0]see",
            images=images,
            thinking="t",
            tool_calls=[call],
            tool_name="n",
            tool_call_id="i",
        )
    assert message.content == "see"
    text_only = user("hi")
    assert without_images([text_only])[0] is text_only
