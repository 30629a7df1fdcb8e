"""What the families with ``<|im_start|>ROLE`` turns share (renderers-and-parsers 1.9, 3.1, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.prompting.renderers.images import tagged_contents
from ollamad.wire import Message

END = "<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
THINK_OPEN = "<think>\n"

#: XI: how to call a function, written behind the closing ``</tools>`` (1.9).
XML_CALL_INSTRUCTIONS = """

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must \
be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the \
function call, but NOT after
- If there is no function call available, answer the question like normal with your current \
knowledge and do not tell the user about function calls
</IMPORTANT>"""


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}{END}"


def tool_result(messages: Sequence[Message], index: int, content: str) -> str:
    """The tool message at ``index``: those in a row share one user turn."""
    first = index == 0 or messages[index - 1].role != "tool"
    last = index + 1 == len(messages) or messages[index + 1].role != "tool"
    opening = "<|im_start|>user" if first else ""
    closing = END if last else ""
    return f"{opening}\n<tool_response>\n{content}\n</tool_response>{closing}"


def last_query(messages: Sequence[Message], *, trimmed: bool) -> int | None:
    """The index of the last user message that is no wrapped tool result (3.3).

    ``trimmed``: whitespace around the content does not matter. Looked at with its image tags even
    while tokens are counted without them, so that the count is that of the prompt which is sent.
    """
    tagged = tagged_contents(messages, tag=True)
    for index in range(len(messages) - 1, -1, -1):
        content = tagged[index].strip() if trimmed else tagged[index]
        if messages[index].role == "user" and not _is_wrapped_result(content):
            return index
    return None


def _is_wrapped_result(content: str) -> bool:
    return content.startswith("<tool_response>") and content.endswith("</tool_response>")
