"""The prompts of the renderers' worked examples (renderers-and-parsers.md 3), kept as files.

Blanks at the ends of their lines count, and so does a newline at the end.
"""

from __future__ import annotations

from pathlib import Path

_EXAMPLES = Path(__file__).parent.parent / "unit" / "prompting" / "renderer_examples"


def example(name: str) -> str:
    """The prompt of the example; ``[XI]`` in it stands for the shared call instructions."""
    return _text(name).replace("[XI]", _text("xml_call_instructions"))


def _text(name: str) -> str:
    return (_EXAMPLES / f"{name}.txt").read_text(encoding="utf-8")
