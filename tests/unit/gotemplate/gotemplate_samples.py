"""The data of the contract's table C1 and how its templates are run."""

from __future__ import annotations

from typing import Any

from ollamad.gotemplate.functions import ALL, Function
from ollamad.gotemplate.template import parse
from ollamad.store import json_text

DATA: dict[str, Any] = {
    "s": "abc",
    "u": "héllo",
    "e": "",
    "n": None,
    "t": True,
    "b": False,
    "i": 3.0,
    "f": 2.5,
    "l": ["x", "y", "z"],
    "el": [],
    "m": {"a": "q", "b": 1.0, "k": {"z": 1.0}},
    "em": {},
    "nl": [None, 1.0, [None]],
}

FUNCTIONS = {
    "json": Function(lambda value: json_text.encode(value, sort_keys=True).decode(), 1, 1),
    "currentDate": Function(lambda *_: "today", texts=ALL),
}


def run(template: str, **more: Any) -> str:
    return parse(template, FUNCTIONS).execute({**DATA, **more})
