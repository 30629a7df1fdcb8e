"""Progress events of create, pull and push as lines of a `Display` (``cli.md`` 3.1, 8)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ollamad.cli.width import harmless

if TYPE_CHECKING:
    from ollamad.cli.progress import Bar, Display, Spinner
    from ollamad.wire import Progress

_PREFIX = "sha256:"
_DIGITS = 12


def digest_label(digest: str) -> str:
    """Twelve digits of a digest, or all of one that is too short to have them."""
    end = len(_PREFIX) + _DIGITS
    return digest[len(_PREFIX) : end] if len(digest) >= end else digest


def _of_create(event: Progress) -> str:
    return event.status or f"pulling {digest_label(event.digest)}..."


def _of_pull(event: Progress) -> str:
    digits = event.digest.removeprefix(_PREFIX)
    return f"pulling {digits if digits == event.digest else digits[:_DIGITS]}:"


def _of_push(event: Progress) -> str:
    return event.status or f"pushing {digest_label(event.digest)}..."


class Style(NamedTuple):
    """How a command shows its events: the label of a bar, and whether one may stand at 0."""

    label: Callable[[Progress], str]
    from_zero: bool


CREATE = Style(_of_create, True)
PULL = Style(_of_pull, False)
PUSH = Style(_of_push, True)


class EventProgress:
    """Progress events as lines: a bar for each digest, a spinner for every other status."""

    def __init__(
        self, display: Display, style: Style, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._display = display
        self._style = style
        self._clock = clock
        self._bars: dict[str, Bar] = {}
        self._spinner: Spinner | None = None
        self._status = ""

    @property
    def has_moved(self) -> bool:
        """Whether there was anything of a blob."""
        return bool(self._bars)

    def show(self, event: Progress) -> None:
        if event.digest:
            if event.completed > 0 or self._style.from_zero:
                self._show_bar(event)
        elif event.status != self._status:
            self.end()
            self._status = event.status
            self._spinner = self._display.spin(harmless(event.status, ""))

    def _show_bar(self, event: Progress) -> None:
        self.end()
        bar = self._bars.get(event.digest)
        if bar is None:
            label = harmless(self._style.label(event), "")
            bar = self._display.bar(label, event.total, event.completed)
            self._bars[event.digest] = bar
        elif event.total > 0:
            bar.most = event.total
        bar.set(event.completed, self._clock())
        self._display.changed(bar)

    def end(self) -> None:
        """Stop the spinner that is the last one."""
        self._display.stop(self._spinner)
        self._spinner = None
