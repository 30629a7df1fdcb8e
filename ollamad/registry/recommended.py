"""Models that are recommended: what is believed of a fetched list, and when to fetch. Pure.

Source: http-api.md 16, ``GET /api/experimental/model-recommendations``.
"""

from __future__ import annotations

import msgspec

from ollamad.wire import ModelRecommendation, RecommendationsResponse

#: Seconds between two fetches that succeed, give or take a fifth.
INTERVAL = 4 * 3600.0
_SPREAD = 0.2
#: Seconds to wait after the first, the second … failure in a row.
_AFTER_FAILURE = (300.0, 900.0, 3600.0, INTERVAL)
#: Somebody who reads the list has it fetched, but not more often than this, in seconds.
_BETWEEN_READS = 5.0

#: A list beyond these is not believed.
LONGEST_LIST = 256 * 1024
_MOST_MODELS = 200
_LARGEST = 2**53

_BUILT_IN = (
    ("kimi-k2.6:cloud", "Open multimodal model for coding and agents", 262144, 262144, 0),
    ("glm-5.1:cloud", "Reasoning and code generation for long tasks", 202752, 131072, 0),
    ("qwen3.5:cloud", "Reasoning, coding and agents with vision", 262144, 32768, 0),
    ("minimax-m2.7:cloud", "Fast and efficient coding and everyday work", 204800, 128000, 0),
    ("gemma4", "Reasoning and code generation on this machine", 0, 0, 12_000_000_000),
    ("qwen3.5", "Reasoning, coding and vision on this machine", 0, 0, 14_000_000_000),
)

#: What is recommended until something else was fetched.
BUILT_IN: tuple[ModelRecommendation, ...] = tuple(
    ModelRecommendation(
        model=model,
        description=description,
        context_length=context,
        max_output_tokens=output,
        vram_bytes=vram,
    )
    for model, description, context, output, vram in _BUILT_IN
)


class BadList(Exception):
    """A fetched list is not one that can be believed."""


def read_list(raw: bytes) -> tuple[ModelRecommendation, ...]:
    """The recommendations in a fetched answer or a snapshot.

    Texts are trimmed. Models of the cloud that do not say what they can take are left out. Raises
    BadList for what is no such list, one that is empty in the end, and one with a model that has
    no name or is named twice.
    """
    if len(raw) > LONGEST_LIST:
        raise BadList("the list is too long")
    try:
        found = msgspec.json.decode(raw, type=_List)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadList(str(error)) from None
    if not found.recommendations or len(found.recommendations) > _MOST_MODELS:
        raise BadList(f"{len(found.recommendations or ())} models")
    models = [_trimmed(entry) for entry in found.recommendations]
    names = {entry.model for entry in models}
    if "" in names:
        raise BadList("a model without a name")
    if len(names) < len(models):
        raise BadList("a model that is named twice")
    kept = tuple(entry for entry in models if not _lacks_limits(entry))
    if not kept:
        raise BadList("no model that says what it can take")
    return kept


def snapshot(models: tuple[ModelRecommendation, ...]) -> bytes:
    """What is kept on disk; `read_list` reads it."""
    return msgspec.json.encode(RecommendationsResponse(recommendations=list(models)))


class _Entry(msgspec.Struct):
    """An entry as it comes; ``null`` stands for nothing, as everywhere in the API."""

    model: str | None = None
    description: str | None = None
    context_length: int | None = None
    max_output_tokens: int | None = None
    vram_bytes: int | None = None
    required_plan: str | None = None


class _List(msgspec.Struct):
    recommendations: list[_Entry] | None = None


def _trimmed(entry: _Entry) -> ModelRecommendation:
    def size(value: int | None) -> int:
        return min(max(0, value or 0), _LARGEST)

    def text(value: str | None) -> str:
        # It is shown in terminals: nothing in it may steer one.
        return "".join(c if c.isprintable() else " " for c in value or "").strip()

    return ModelRecommendation(
        model=text(entry.model),
        description=text(entry.description),
        context_length=size(entry.context_length),
        max_output_tokens=size(entry.max_output_tokens),
        vram_bytes=size(entry.vram_bytes),
        required_plan=text(entry.required_plan),
    )


def _lacks_limits(entry: ModelRecommendation) -> bool:
    is_cloud = entry.model.lower().endswith((":cloud", "-cloud"))
    return is_cloud and not (entry.context_length and entry.max_output_tokens)


class Schedule:
    """When to fetch. Times are seconds of one clock; ``chance`` is from 0 up to 1."""

    def __init__(self, now: float) -> None:
        #: When to fetch next, unless somebody reads before.
        self.due = now
        self._failures = 0
        self._last_attempt: float | None = None

    def started(self, now: float) -> None:
        self._last_attempt = now

    def succeeded(self, now: float, chance: float) -> None:
        self._failures = 0
        self.due = now + INTERVAL * (1 + _SPREAD * (2 * chance - 1))

    def failed(self, now: float) -> None:
        self.due = now + _AFTER_FAILURE[min(self._failures, len(_AFTER_FAILURE) - 1)]
        self._failures += 1

    def read(self, now: float) -> bool:
        """Somebody reads the list: whether to fetch now."""
        last = self._last_attempt
        if last is not None and now - last < _BETWEEN_READS:
            return False
        self.due = min(self.due, now)
        return True
