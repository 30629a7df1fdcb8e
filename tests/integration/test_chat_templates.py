"""Chat templates inside the weights that are other than SmolLM2's own, on the real runner."""

from __future__ import annotations

import json
from typing import Any

from support.daemon import Daemon
from support.models import retemplated

ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Give a number as JSON."}],
    "options": {"seed": 1, "temperature": 0, "num_predict": 80},
    "stream": False,
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and m.reasoning_content %}"
    "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)


def test_one_that_cannot_be_read_does_not_matter_beside_a_go_template(make_daemon: Any) -> None:
    daemon: Daemon = make_daemon()
    broken = retemplated(daemon.home / "broken.gguf", "{% broken {{")
    template = "{{ range .Messages }}{{ .Content }}{{ end }}"
    daemon.create("broken", broken, template=template)
    answer = daemon.post("/api/chat", {"model": "broken", **ASK})
    assert answer["done"]
    formed = daemon.post("/api/chat", {"model": "broken", **ASK, "format": SCHEMA})
    assert formed["message"]["content"].startswith('{"a": ')


def test_one_that_thinks(make_daemon: Any) -> None:
    """llama.cpp splits reasoning and answer, and lets a format wait for the answer."""
    daemon: Daemon = make_daemon()
    daemon.create("thinker", retemplated(daemon.home / "thinker.gguf", THINKING))
    shown = daemon.post("/api/show", {"model": "thinker"})
    assert "thinking" in shown["capabilities"]
    free = daemon.post("/api/chat", {"model": "thinker", **ASK})
    assert free["message"]["thinking"]
    quiet = daemon.post("/api/chat", {"model": "thinker", **ASK, "think": False})
    assert "thinking" not in quiet["message"]
    assert quiet["message"]["content"]
    formed = daemon.post("/api/chat", {"model": "thinker", **ASK, "think": False, "format": SCHEMA})
    assert list(json.loads(formed["message"]["content"])) == ["a"]
    both = daemon.post("/api/chat", {"model": "thinker", **ASK, "format": SCHEMA})
    assert both["message"]["thinking"]
