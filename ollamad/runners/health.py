"""What a runner's ``GET /health`` means, and how long a load may take: decisions without I/O.

Spec: runners-and-scheduling 2.8, 2.9, 2.10; cases in 8.4.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from ollamad.errors import LoadError, incompatible_suffix
from ollamad.runners.log import is_out_of_memory, is_recoverable_out_of_memory

_MS = 1_000_000
_SECOND = 1_000_000_000
_FOREVER = 2**63 - 1


class State(enum.Enum):
    """The value is the name used in messages (2.8)."""

    READY = "llm server ready"
    BUSY = "llm busy - no slots available"
    LAUNCHED = "llm server launched"
    LOADING = "llm server loading model"
    NOT_RESPONDING = "llm server not responding"
    ERROR = "llm server error"


@dataclass(frozen=True, slots=True)
class Health:
    state: State
    #: What to tell when the state is ``ERROR`` or ``NOT_RESPONDING``.
    text: str = ""


REFUSED = Health(State.NOT_RESPONDING, "connection refused")
SILENT = Health(State.NOT_RESPONDING, "server not responding")


def transport_failure(error: BaseException) -> Health:
    """A poll that failed for another reason than a refused connection or a deadline."""
    return Health(State.ERROR, f"health resp: {error}")


def interpret(body: bytes) -> Health:
    """The state that the body of a ``/health`` response tells, whatever its HTTP status."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Health(State.ERROR, f"llama-server error: {body.decode(errors='replace').strip()}")
    status = message = ""
    if isinstance(answer, dict):
        status = _word(answer.get("status"))
        error = answer.get("error")
        message = _word(error.get("message") if isinstance(error, dict) else error)
    if status == "ok":
        return Health(State.READY)
    if "loading model" in (status, message):
        return Health(State.LOADING)
    if "no slot available" in (status, message):
        return Health(State.BUSY)
    return Health(State.ERROR, f"llama-server error: {body.decode(errors='replace').strip()}")


def _word(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


#: Names that Go's standard library gives to signals; clients see them in errors.
_SIGNAL_NAMES = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}


def exit_text(returncode: int | None) -> str:
    """``<exit>`` of 2.10 for a return code of ``subprocess`` (negative: a signal)."""
    if returncode is None:
        return "unknown"
    if returncode < 0:
        return f"signal: {_SIGNAL_NAMES.get(-returncode, f'signal {-returncode}')}"
    return "OK" if returncode == 0 else f"exit status {returncode}"


def termination_text(returncode: int | None, last_error: str) -> str:
    """The error text for a runner that ended by itself (2.10)."""
    parts = ["llama-server process has terminated"]
    if returncode != 0 or not last_error:
        parts.append(exit_text(returncode))
    if last_error:
        parts.append(last_error)
    return ": ".join(parts)


_INCOMPATIBLE = ("unknown model architecture", "error loading model", "failed to load model")


def termination_error(returncode: int | None, last_error: str, model_name: str) -> LoadError:
    """The error for a runner that ended before it was ready."""
    text = termination_text(returncode, last_error)
    out_of_memory = is_out_of_memory(last_error)
    if model_name and not out_of_memory and any(hint in last_error for hint in _INCOMPATIBLE):
        text += incompatible_suffix(model_name)
    return LoadError(text, out_of_memory=out_of_memory)


class LoadWatch:
    """Decides when a load has ended: ready, failed, or stalled for longer than the timeout.

    Times are monotonic nanoseconds. Feed it what happens; ``deadline`` and ``poll_delay`` say
    when to look again.
    """

    def __init__(self, timeout_ns: int, now: int) -> None:
        self._timeout = timeout_ns if timeout_ns > 0 else _FOREVER
        self._started = now
        self._activity = now
        self.state = State.LAUNCHED

    @property
    def deadline(self) -> int:
        """The instant at which the load counts as stalled, unless something happens before."""
        return self._activity + self._timeout

    def output(self, now: int) -> None:
        """The runner wrote something, be it a dot without a line break."""
        self._activity = now

    def poll_delay(self, now: int) -> int:
        """Nanoseconds to wait before the next ``/health``: often at first, for small models."""
        age = now - self._started
        if age < 2 * _SECOND:
            return 10 * _MS
        if age < 10 * _SECOND:
            return 25 * _MS
        return 100 * _MS

    def polled(self, health: Health, last_error: str, now: int) -> bool:
        """True when the runner is ready. Raises ``LoadError`` for out of memory."""
        if health.state is State.LOADING and self.state is not State.LOADING:
            self._activity = now
        self.state = health.state
        if health.state is State.READY:
            return True
        if health.state is State.ERROR:
            self._judge(health, last_error)
        return False

    def check(self, last_error: str, now: int) -> None:
        """Raises ``LoadError`` when nothing happened for the whole timeout."""
        if now >= self.deadline:
            raise LoadError(
                f"timed out waiting for llama-server to start - {last_error}",
                out_of_memory=is_out_of_memory(last_error),
            )

    def _judge(self, health: Health, last_error: str) -> None:
        for message in (last_error, health.text):
            if is_out_of_memory(message) and not is_recoverable_out_of_memory(message):
                raise LoadError(
                    f"llama-server reported out-of-memory during startup: {message}",
                    out_of_memory=True,
                )
