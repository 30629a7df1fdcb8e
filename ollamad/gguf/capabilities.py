"""What a model can do, as far as its files tell (``prompting.md`` 1.3 and 6.1). Pure."""

from __future__ import annotations

from ollamad.gguf.facts import Facts

_TOOL_ANSWER_MARKS = (
    "tool_response",
    "tool_results",
    "role'] == 'tool'",
    'role\'] == "tool"',
    "role\"] == 'tool'",
    'role"] == "tool"',
    "message.role == 'tool'",
    'message.role == "tool"',
    "ipython",
)


def has_tools(chat_template: str) -> bool:
    """Whether a GGUF's chat template knows tools."""
    return "tools" in chat_template or "tool_call" in chat_template


def has_thinking(chat_template: str) -> bool:
    """Whether a GGUF's chat template knows thinking."""
    if "<think>" in chat_template and "</think>" in chat_template:
        return True
    splits = any(f"content.split({mark})" in chat_template for mark in ("'</think>'", '"</think>"'))
    return splits and not ("reasoning_content" in chat_template or "<SPECIAL_12>" in chat_template)


def has_tool_round_trip(chat_template: str) -> bool:
    """Whether it also renders earlier calls and what the tools answered."""
    return (
        has_tools(chat_template)
        and ("tool_calls" in chat_template or "assistant_tool_call" in chat_template)
        and any(mark in chat_template for mark in _TOOL_ANSWER_MARKS)
    )


def template_capabilities(chat_template: str) -> list[str]:
    """``tools``, ``thinking``: for a model whose chat template is the one in use."""
    found = []
    if has_tools(chat_template):
        found.append("tools")
    if has_thinking(chat_template):
        found.append("thinking")
    return found


def model_capabilities(facts: Facts) -> list[str]:
    """``embedding`` or ``completion``, ``vision``, ``audio``, from the weights' own keys."""
    found = ["embedding" if facts.has_pooling else "completion"]
    if facts.vision:
        found.append("vision")
    if facts.audio:
        found.append("audio")
    return found


def projector_capabilities(facts: Facts) -> list[str]:
    """What a separate projector file adds."""
    if facts.has_audio_encoder and facts.vision_projector_type != "gemma3nv":
        return ["vision", "audio"]
    return ["vision"]
