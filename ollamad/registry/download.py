"""What to ask for next while a blob arrives: parts, retries, stalls, connections.

Source: registry-and-store 3.5 and 3.6, with the improvements named there. Pure: the shell
(``fetch``) tells what happened and when, in seconds of any clock, and does what it is told.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from ollamad.registry.parts import Part

#: As many parts at once as the reference, but no more than needed: with few, parts end one after
#: another, and their bytes can be hashed while the next ones arrive.
MOST_CONNECTIONS = 16
FIRST_CONNECTIONS = 4
#: Bytes per second below which more connections may help.
_LOW_RATE = 100_000_000

#: Counted failures in a row with which a part gives up.
_MOST_FAILURES = 6

#: An attempt that brought so much was no failure of the line as a whole. ``_MUCH``: bytes.
_MUCH = 1_000_000
_SOME = 16  # a sixteenth of the part

#: An attempt this much slower than others is worth a new connection, this many times in a row.
_FAR_SLOWER = 0.1
_MOST_SLOW = 3
#: Attempts in a row that stalled without a single byte until such ones count as failures: ten
#: minutes of silence. The reference would ask for ever.
_MOST_EMPTY_STALLS = 20
#: Bytes per second that are next to nothing, with whatever the others do.
_DRIP_RATE = 1024


@dataclass(frozen=True, slots=True)
class Timing:
    """All durations of downloads, in seconds."""

    #: Between progress events, and between looks at stalls and speeds.
    progress: float = 0.06
    tick: float = 1.0
    #: Between notes of what is there; after a crash at most this much is fetched again.
    checkpoint: float = 1.0
    #: Before an attempt after the first failure; doubles with each, up to ``longest_delay``.
    delay: float = 1.0
    longest_delay: float = 32.0
    #: The longest wait that a registry can ask for.
    retry_after: float = 60.0
    #: Without a byte until an attempt has stalled.
    stall: float = 30.0
    #: Over which an attempt is compared with others; and until dripping is noticed.
    slow: float = 15.0
    drip: float = 60.0
    #: Between additions of connections; none after a registry asked for patience.
    growth: float = 2.0
    patience: float = 30.0
    #: For finding the direct URL, and between its attempts: n² steps, at most ``longest_step``.
    direct_url: float = 30.0
    step: float = 0.01
    longest_step: float = 10.0
    #: Between looks at a blob that another process is fetching.
    other_process: float = 1.0
    #: Between signs that files are still needed.
    touch: float = 600.0


DEFAULT_TIMING = Timing()


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for the bytes ``first`` to ``last``, both included, of part ``number``."""

    number: int
    first: int
    last: int

    @property
    def range(self) -> str:
        return f"bytes={self.first}-{self.last}"

    @property
    def size(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Broken:
    """An attempt that ended before its part was complete, counted as a failure.

    ``code``: the answer's status if that was the reason, else 0. ``retry_after``: seconds that the
    registry asked for.
    """

    text: str
    code: int = 0
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An attempt that we ended ourselves because it brought too little: it is not counted, unless
    it is one of many that brought nothing at all."""

    text: str
    slow: bool = False


@dataclass(slots=True)
class _Attempt:
    began: float
    completed_before: int
    last_sign: float
    #: Writing what it brought: until that is done, its silence is our fault.
    busy: bool = False
    received: int = 0
    #: Times and ``received`` then, one for each look.
    marks: deque[tuple[float, int]] = field(default_factory=deque)

    def rate(self, span: float, now: float) -> float | None:
        """Bytes a second over the last ``span`` seconds; None for a younger attempt."""
        if now - self.began < span:
            return None
        earlier = 0
        for moment, received in self.marks:
            if moment > now - span:
                break
            earlier = received
        return (self.received - earlier) / span


@dataclass(slots=True)
class _State:
    part: Part
    #: What the part file says.
    noted: int
    attempt: _Attempt | None = None
    not_before: float = 0.0
    failures: int = 0
    #: As ``failures``, but small progress does not shorten the wait.
    exponent: int = 0
    slow: int = 0
    empty_stalls: int = 0
    last_error: str = ""


class Download:
    """The parts of one blob on their way. ``now`` is the time of any steady clock."""

    def __init__(self, parts: Sequence[Part], now: float, timing: Timing = DEFAULT_TIMING) -> None:
        self._states = [_State(part, part.completed) for part in parts]
        self._timing = timing
        self.total = sum(part.size for part in parts)
        self.completed = sum(part.completed for part in parts)
        #: The text with which it failed.
        self.error: str | None = None
        #: The direct URL was refused: nothing begins until there is a new one (`renewed`).
        self.needs_url = False
        self._url = 0  # counts URLs
        self._urls: dict[int, int] = {}  # with which of them a part's attempt began
        self.connections = FIRST_CONNECTIONS
        self._grown = now
        self._received = 0
        self._received_before = 0
        self._prefix = 0  # the first part that is not complete
        #: Bytes a second of attempts that ended.
        self._rates: deque[float] = deque(maxlen=8)

    # --- what is there --------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        return self.completed == self.total

    @property
    def parts(self) -> list[Part]:
        return [state.part for state in self._states]

    def prefix(self) -> int:
        """How many bytes from the blob's start on are there without a gap."""
        while self._prefix < len(self._states):
            part = self._states[self._prefix].part
            if not part.is_complete:
                return part.next
            self._prefix += 1
        return self.total

    def unnoted(self) -> list[Part]:
        """The parts of which the part files say less than is there."""
        return [state.part for state in self._states if state.part.completed != state.noted]

    def noted(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self._states[part.number].noted = part.completed

    # --- what to do -----------------------------------------------------------------------------

    def start(self, now: float) -> list[Ask]:
        """The attempts to begin now; each ends with `ended`."""
        asks: list[Ask] = []
        if self.error is not None or self.needs_url:
            return asks
        running = sum(state.attempt is not None for state in self._states)
        for state in self._states[self._prefix :]:
            part = state.part
            if part.is_complete or state.attempt is not None or state.not_before > now:
                continue
            if state.failures >= _MOST_FAILURES:
                self.error = f"max retries exceeded: {state.last_error}"
                return []
            if running >= self.connections:
                break
            running += 1
            state.attempt = _Attempt(now, part.completed, now)
            self._urls[part.number] = self._url
            asks.append(Ask(part.number, part.next, part.end - 1))
        return asks

    def wake_at(self, now: float) -> float:
        """When the next part will have waited long enough; infinite if none waits."""
        waits = [
            state.not_before
            for state in self._states[self._prefix :]
            if state.attempt is None and not state.part.is_complete and state.not_before > now
        ]
        return min(waits, default=float("inf"))

    def look(self, now: float) -> dict[int, Interrupted]:
        """Once a tick: the attempts to end, by part, and with what."""
        running = {s.part.number: s.attempt for s in self._states if s.attempt is not None}
        self._grow(len(running), now)
        ends = {}
        rates = {number: a.rate(self._timing.slow, now) for number, a in running.items()}
        for number, attempt in running.items():
            if not attempt.busy and now - attempt.last_sign >= self._timing.stall:
                ends[number] = Interrupted(f"part {number} stalled")
            elif self._is_slow(number, attempt, rates, now):
                ends[number] = Interrupted(f"part {number} is slow", slow=True)
            attempt.marks.append((now, attempt.received))
            while len(attempt.marks) > 1 and attempt.marks[1][0] <= now - self._timing.drip:
                attempt.marks.popleft()
        return ends

    def _grow(self, running: int, now: float) -> None:
        """More connections while all are used and bring little together."""
        elapsed = now - self._grown
        if elapsed < self._timing.growth:
            return
        rate = (self._received - self._received_before) / elapsed
        self._grown, self._received_before = now, self._received
        if running >= self.connections and rate < _LOW_RATE:
            self.connections = min(self.connections + FIRST_CONNECTIONS, MOST_CONNECTIONS)

    def _is_slow(
        self, number: int, attempt: _Attempt, rates: Mapping[int, float | None], now: float
    ) -> bool:
        state = self._states[number]
        if attempt.busy or state.slow >= _MOST_SLOW:
            return False
        own = rates[number]
        others = [rate for other, rate in rates.items() if other != number and rate is not None]
        others += self._rates  # at the end a part has no others beside it
        if own is not None and others and own < _FAR_SLOWER * median(others):
            return True
        drip = attempt.rate(self._timing.drip, now)
        return drip is not None and drip < _DRIP_RATE

    # --- what happened --------------------------------------------------------------------------

    def received(self, number: int, count: int, now: float) -> None:
        """``count`` bytes of the part have arrived."""
        attempt = self._running(number)
        attempt.received += count
        attempt.last_sign = now
        self._received += count

    def writing(self, number: int) -> None:
        """They are being written; `written` follows unless that fails."""
        self._running(number).busy = True

    def written(self, number: int, count: int, now: float) -> None:
        """``count`` more bytes of the part are in the data file."""
        attempt = self._running(number)
        attempt.busy = False
        attempt.last_sign = now
        state = self._states[number]
        state.part = replace(state.part, completed=state.part.completed + count)
        self.completed += count

    def ended(self, number: int, end: Broken | Interrupted, now: float) -> None:
        """The attempt is over, and what it brought is written; how it ended is of no interest when
        that completed the part."""
        state = self._states[number]
        attempt = self._running(number)
        state.attempt = None
        url = self._urls.pop(number)
        gained = state.part.completed - attempt.completed_before
        if gained >= _MUCH:
            self._rates.append(gained / max(now - attempt.began, 1e-3))
            state.exponent = 0
        if gained >= min(_MUCH, max(1, state.part.size // _SOME)):
            state.failures = 0
        state.last_error = end.text
        state.not_before = now
        if state.part.is_complete:
            return
        if isinstance(end, Interrupted):
            state.slow += end.slow
            state.empty_stalls = 0 if gained else state.empty_stalls + 1
            if state.empty_stalls <= _MOST_EMPTY_STALLS:
                return
            end = Broken(end.text)
        state.failures += 1
        delay = min(self._timing.delay * 2**state.exponent, self._timing.longest_delay)
        state.exponent += 1
        state.not_before = now + max(delay, min(end.retry_after, self._timing.retry_after))
        if end.code in (401, 403, 410) and url == self._url:
            self.needs_url = True  # signed URLs expire
        if end.code in (429, 503):
            self.connections = max(1, self.connections // 2)
            self._grown = now + self._timing.patience - self._timing.growth
            self._received_before = self._received

    def renewed(self) -> None:
        """There is a new direct URL."""
        self._url += 1
        self.needs_url = False

    def fail(self, text: str) -> None:
        """Nothing helps any more; the first reason counts."""
        if self.error is None:
            self.error = text

    def _running(self, number: int) -> _Attempt:
        attempt = self._states[number].attempt
        assert attempt is not None, number
        return attempt


_CONTENT_RANGE = re.compile(r"bytes\s+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


def unfit(status: int, headers: Mapping[str, str], ask: Ask, total: int) -> Broken | None:
    """Why this answer to a ranged request is not the bytes that were asked for, or None.

    ``headers``: their names in lower case, or regardless of it. ``total``: bytes of the blob. What
    is let through here goes into the file: an error page must not, nor a whole blob in the place
    of a part.
    """
    wrong = f"unexpected status code {status}"
    if status not in (200, 206):
        return Broken(wrong, status, retry_after(headers))
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return Broken("the registry sends a compressed blob")
    if status == 200:
        if (ask.first, ask.size) != (0, total):
            return Broken("the registry ignores the requested range")
    else:
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
        if match is None or (int(match[1]), int(match[2])) != (ask.first, ask.last):
            return Broken("the registry sends another range than requested")
        if match[3] != "*" and int(match[3]) != total:
            return Broken(f"the registry has {match[3]} bytes of the blob, not {total}")
    length = headers.get("content-length", "").strip()
    if length and length != str(ask.size):
        return Broken(f"the registry sends {length} bytes, not {ask.size}")
    return None


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait; 0 for a date, which needs a clock that both share."""
    text = headers.get("retry-after", "").strip()
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0.0
