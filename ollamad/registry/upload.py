"""One blob on its way into a registry: what to send next, and what an answer means.

Source: registry-and-store 4.3-4.5 and 7.3.2. Pure: the time is an argument, the shell (``send``)
carries out the actions and tells what came of them. All times are seconds of one clock, offsets and
sizes bytes.

The rules:

* There is one current session URL; the parts take it in turn, for each answer names the next one.
* A part that the registry redirects leaves the URL to the next part at once and is sent on to the
  object store meanwhile; so up to ``parallel`` parts are on their way.
* A part that fails is sent again after 1, 2, 4 … seconds on the same URL. Where no part was ever
  redirected, the registry itself keeps the bytes, and it may have kept some of the failed part:
  that session is lost, and the next one starts from the first part.
* When all parts are stored the session is committed, with the same delays between attempts.
* Every delay is waited for after the last failure too, as the reference does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ollamad.errors import OllamadError
from ollamad.registry.parts import LEAST_PART, MOST_PART, Part
from ollamad.registry.tensor_plan import TensorTiming
from ollamad.registry.upload_forms import etag

#: Redirects of the PUT that carries a part to the object store.
MOST_REDIRECTS = 10

_NO_LOCATION = "http: no Location header in response"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadTiming:
    """What an upload takes its time from, in seconds; ``least_part`` and ``most_part`` in bytes.

    ``stall``: a body of which nothing is accepted for so long is a failed attempt; ``answer``: the
    same for the answer to a body that was sent whole. ``retry_after``: the longest wait that a
    registry may ask for.
    """

    attempts: int = 6
    first_delay: float = 1.0
    retry_after: float = 60.0
    stall: float = 60.0
    answer: float = 600.0
    progress: float = 0.06
    parallel: int = 16
    least_part: int = LEAST_PART
    most_part: int = MOST_PART
    tensors: TensorTiming = field(default_factory=TensorTiming)

    def delay(self, failures: int, asked: float | None = None) -> float:
        """How long to wait after so many failures; ``asked``: Retry-After of the answer."""
        own = self.first_delay * 2.0 ** (failures - 1)
        return own if asked is None else max(own, min(asked, self.retry_after))


TIMING = UploadTiming()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer to a part. ``location`` is its Location and ``session`` the next session URL, both
    absolute; ``retry_after`` in seconds."""

    status: int
    reason: str = ""
    body: str = ""
    location: str | None = None
    session: str | None = None
    retry_after: float | None = None

    @property
    def error(self) -> OllamadError:
        return OllamadError(f"http status {self.status} {self.reason}: {self.body}")


@dataclass(frozen=True, slots=True)
class Open:
    """Ask for a session."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Send the part to the registry."""

    part: Part
    url: str


@dataclass(frozen=True, slots=True)
class Put:
    """Send the part to where the registry wants it. ``hops``: redirects so far."""

    part: Part
    url: str
    hops: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """End the session. ``unsure``: an earlier commit may have got through."""

    url: str
    etag: str
    unsure: bool = False


Action = Open | Patch | Put | Commit


class Upload:
    """The state of one upload. ``done``: the registry has the blob; ``error``: why it never will.

    The shell starts what ``due`` returns and reports each action once: ``opened``, ``mounted`` or
    ``not_opened``; ``answered`` or ``broken`` for a part; ``committed`` or ``not_committed``.
    """

    def __init__(self, parts: Sequence[Part], now: float, timing: UploadTiming) -> None:
        self.done = False
        self.error: OllamadError | None = None

        self._parts = parts
        self._timing = timing
        # What is to be started, and when; an error is the end.
        self._waiting: list[tuple[float, Action | OllamadError]] = [(now, Open())]

        # The session: lost and made anew by ``_restart``.
        self._session: str | None = None
        self._next = 0
        self._md5: dict[int, bytes] = {}
        self._under_way: dict[int, str] = {}  # where a redirected part began
        self._sessions = 1

        self._redirected = False
        self._failures: dict[tuple[str, int], int] = {}
        self._sent = [0] * len(parts)

    @property
    def completed(self) -> int:
        """Bytes that were accepted and not lost again."""
        return sum(self._sent)

    def due(self, now: float) -> list[Action]:
        """What is to be started now. Sets ``error`` when the last delay is over."""
        ready = [item for at, item in self._waiting if at <= now]
        self._waiting = [(at, item) for at, item in self._waiting if at > now]
        actions: list[Action] = []
        for item in ready:
            if isinstance(item, OllamadError):
                self.error = self.error or item
            else:
                actions.append(item)
        return [] if self.error else actions

    @property
    def wake_at(self) -> float:
        """When to call ``due`` again if nothing happens before; infinite for never."""
        return min((at for at, _ in self._waiting), default=math.inf)

    def give_up(self, error: OllamadError) -> None:
        """Something that no further attempt can mend."""
        self.error = self.error or error

    def accepted(self, part: Part, count: int) -> None:
        """``count`` further bytes of the part were taken."""
        self._sent[part.number] += count

    # --- sessions -----------------------------------------------------------------------------

    def mounted(self) -> None:
        """The registry has the blob without being sent it."""
        self._sent = [part.size for part in self._parts]
        self.done = True

    def opened(self, now: float, session: str | None) -> None:
        """A session to send the parts to; None when the answer named none."""
        if session is None:
            self.error = OllamadError(_NO_LOCATION)
            return
        self._session = session
        self._go_on(now)

    def not_opened(self, now: float, error: OllamadError, *, passing: bool) -> None:
        """``passing``: it may do better later. The first opening is never repeated (4.3)."""
        if passing and self._sessions > 1:
            self._restart(now, _exceeded(error), failures=self._sessions, asked=None)
        else:
            self.error = error

    def _restart(
        self, now: float, error: OllamadError, *, failures: int, asked: float | None
    ) -> None:
        """Give the session up. Only a session without redirects: nothing else is under way."""
        self._session = None
        self._next = 0
        self._md5.clear()
        self._sent = [0] * len(self._parts)
        failures = max(failures, self._sessions)
        if failures >= self._timing.attempts:
            self._end_after(now, error, failures)
            return
        self._sessions += 1
        self._waiting.append((now + self._timing.delay(failures, asked), Open()))

    # --- parts --------------------------------------------------------------------------------

    def answered(self, now: float, action: Patch | Put, reply: Reply, md5: bytes | None) -> None:
        """``md5``: of the part, 16 bytes; None when the answer came before all of it was sent."""
        if isinstance(action, Patch):
            self._patch_answered(now, action, reply, md5)
        else:
            self._put_answered(now, action, reply, md5)

    def _patch_answered(self, now: float, action: Patch, reply: Reply, md5: bytes | None) -> None:
        part = action.part
        if reply.status == 307 and reply.location is not None:
            self._redirected = True
            self._sent[part.number] = 0
            self._under_way[part.number] = reply.location
            self._waiting.append((now, Put(part, reply.location)))
            self._session = reply.session
            self._go_on(now)
        elif 200 <= reply.status < 300 and md5 is not None:
            if reply.session is None:
                self.error = OllamadError(_NO_LOCATION)
                return
            self._session = reply.session
            self._stored(now, part, md5)
        else:
            # Refused before the body was looked at: nothing of it was kept.
            unread = reply.status in (401, 429)
            self._failed(now, action, reply.error, kept=not unread, asked=_asked(reply))

    def _put_answered(self, now: float, action: Put, reply: Reply, md5: bytes | None) -> None:
        if reply.status in (307, 308) and reply.location is not None:
            self._sent[action.part.number] = 0
            if action.hops < MOST_REDIRECTS:
                onward = Put(action.part, reply.location, action.hops + 1)
                self._waiting.append((now, onward))
                return
            error = OllamadError(f"stopped after {MOST_REDIRECTS} redirects")
            self._failed(now, action, error, kept=False)
        elif 200 <= reply.status < 300 and md5 is not None:
            del self._under_way[action.part.number]
            self._stored(now, action.part, md5)
        else:
            self._failed(now, action, reply.error, kept=False, asked=_asked(reply))

    def broken(self, now: float, action: Patch | Put, error: OllamadError, *, began: bool) -> None:
        """No answer. ``began``: some of the body may have arrived."""
        self._failed(now, action, error, kept=began)

    def _failed(
        self,
        now: float,
        action: Patch | Put,
        error: OllamadError,
        *,
        kept: bool,
        asked: float | None = None,
    ) -> None:
        part = action.part
        self._sent[part.number] = 0
        key = type(action).__name__, part.number
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        prefixed = _exceeded(error)
        if failures >= self._timing.attempts:
            self._end_after(now, prefixed, failures)
        elif isinstance(action, Put):
            again = Put(part, self._under_way[part.number])
            self._waiting.append((now + self._timing.delay(failures, asked), again))
        elif kept and not self._redirected:
            self._restart(now, prefixed, failures=failures, asked=asked)
        else:
            self._waiting.append((now + self._timing.delay(failures, asked), action))

    def _stored(self, now: float, part: Part, md5: bytes) -> None:
        self._md5[part.number] = md5
        self._sent[part.number] = part.size
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """The next part, if the session is free for it; the commit after the last."""
        if self._session is None:
            return
        if self._next < len(self._parts):
            if len(self._under_way) < self._timing.parallel:
                part = self._parts[self._next]
                self._next += 1
                url, self._session = self._session, None  # until its answer names the next
                self._waiting.append((now, Patch(part, url)))
        elif len(self._md5) == len(self._parts):
            url, self._session = self._session, None
            digests = [self._md5[part.number] for part in self._parts]
            self._waiting.append((now, Commit(url, etag(digests))))

    # --- the end ------------------------------------------------------------------------------

    def committed(self) -> None:
        self.done = True

    def not_committed(
        self,
        now: float,
        action: Commit,
        error: OllamadError,
        *,
        lost: bool,
        asked: float | None = None,
    ) -> None:
        """``lost``: the registry may have committed without our learning it."""
        failures = self._failures[("Commit", 0)] = self._failures.get(("Commit", 0), 0) + 1
        if failures >= self._timing.attempts:
            self._end_after(now, error, failures)
            return
        again = Commit(action.url, action.etag, action.unsure or lost)
        self._waiting.append((now + self._timing.delay(failures, asked), again))

    def _end_after(self, now: float, error: OllamadError, failures: int) -> None:
        self._waiting.append((now + self._timing.delay(failures), error))


def _exceeded(error: OllamadError) -> OllamadError:
    return OllamadError(f"max retries exceeded: {error.message}")


def _asked(reply: Reply) -> float | None:
    return reply.retry_after if reply.status in (429, 503) else None
