"""The twenty Go templates that stand for known chat templates (modelfile-and-create 5.1).

``templates/NAME.gotmpl`` are the texts, ``templates/stops.json`` the stop sequences that go with
them. Ours in wording, the formats are those of prompting.md 4.2.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from ollamad.create.layers import DetectedTemplate

_FOLDER = resources.files("ollamad.create") / "templates"


@cache
def stop_lists() -> dict[str, tuple[str, ...]]:
    """The stop sequences of each template, in the order of the names."""
    lists = json.loads((_FOLDER / "stops.json").read_text("utf-8"))
    return {name: tuple(stops) for name, stops in lists.items()}


@cache
def builtin_template(name: str) -> DetectedTemplate:
    """The template of that name, one of ``stop_lists``. Raises KeyError for another name."""
    stops = stop_lists()[name]
    # As bytes: reading text would make LF out of every other line end.
    return DetectedTemplate(name, (_FOLDER / f"{name}.gotmpl").read_bytes().decode("utf-8"), stops)
