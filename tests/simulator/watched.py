"""A scheduler core that is looked at after every event, and trusted in nothing.

It keeps its own books of requests, leases and runners, from what went in and what came out.
What is its own is named ``_books…``, lest it hides something of the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from ollamad.scheduler.actions import Abort, Action, Grant, Measure, Reject, Start, Stop
from ollamad.scheduler.core import Core
from ollamad.scheduler.records import RunnerRecord, State
from ollamad.scheduler.spec import ModelSpec, reload_reason


class Broken(AssertionError):
    """A rule of the scheduler does not hold."""


def raise_broken(message: str) -> None:
    raise Broken(message)


@dataclass
class _Books:
    #: Of requests without a lease, by ticket: what they want, and whether with a slot.
    wanted: dict[int, tuple[ModelSpec, bool]] = field(default_factory=dict)
    #: The runner of each lease, by ticket.
    held: dict[int, int] = field(default_factory=dict)
    alive: dict[int, Start] = field(default_factory=dict)
    loading: set[int] = field(default_factory=set)
    ready: set[int] = field(default_factory=set)
    ending: set[int] = field(default_factory=set)
    measures: int = 0


class WatchedCore(Core):
    """``on_broken`` is told each rule that an event broke; by default it raises ``Broken``."""

    def __init__(
        self, *args: Any, on_broken: Callable[[str], None] = raise_broken, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.on_broken = on_broken
        #: Events until now.
        self.events = 0
        self._books = _Books()

    # --- events -----------------------------------------------------------------------------------

    def request(self, spec: ModelSpec, now: int, **more: Any) -> tuple[int, list[Action]]:
        ticket, actions = super().request(spec, now, **more)
        self._books.wanted[ticket] = (spec, more.get("slot", True))
        return ticket, self._books_checked("request", actions)

    def cancel(self, ticket: int, now: int, **more: Any) -> list[Action]:
        del self._books.wanted[ticket]
        return self._books_checked("cancel", super().cancel(ticket, now, **more))

    def release(self, ticket: int, now: int, **more: Any) -> list[Action]:
        del self._books.held[ticket]
        return self._books_checked("release", super().release(ticket, now, **more))

    def condemn_leased(self, ticket: int, reason: str, now: int, **more: Any) -> list[Action]:
        actions = super().condemn_leased(ticket, reason, now, **more)
        return self._books_checked("condemn_leased", actions)

    def expire(self, key: str, now: int, **more: Any) -> list[Action]:
        return self._books_checked("expire", super().expire(key, now, **more))

    def expire_all(self, now: int, **more: Any) -> list[Action]:
        return self._books_checked("expire_all", super().expire_all(now, **more))

    def drain(self, now: int, **more: Any) -> list[Action]:
        return self._books_checked("drain", super().drain(now, **more))

    def tick(self, now: int, **more: Any) -> list[Action]:
        return self._books_checked("tick", super().tick(now, **more))

    def memory(self, reading: Any, now: int, **more: Any) -> list[Action]:
        self._books.measures -= 1
        return self._books_checked("memory", super().memory(reading, now, **more))

    def loaded(self, runner_id: int, size: Any, now: int, **more: Any) -> list[Action]:
        if runner_id in self._books.loading:  # else its Abort crossed this
            self._books.loading.discard(runner_id)
            self._books.ready.add(runner_id)
        return self._books_checked("loaded", super().loaded(runner_id, size, now, **more))

    def load_failed(self, runner_id: int, error: Any, now: int, **more: Any) -> list[Action]:
        self._books_end(runner_id)
        return self._books_checked(
            "load_failed", super().load_failed(runner_id, error, now, **more)
        )

    def died(self, runner_id: int, error: str, now: int, **more: Any) -> list[Action]:
        self._books.ready.discard(runner_id)
        self._books.ending.add(runner_id)
        return self._books_checked("died", super().died(runner_id, error, now, **more))

    def gone(self, runner_id: int, now: int, **more: Any) -> list[Action]:
        self._books_end(runner_id)
        return self._books_checked("gone", super().gone(runner_id, now, **more))

    # --- books ------------------------------------------------------------------------------------

    def _books_end(self, runner_id: int) -> None:
        del self._books.alive[runner_id]
        for runners in (self._books.loading, self._books.ready, self._books.ending):
            runners.discard(runner_id)

    def _books_checked(self, event: str, actions: list[Action]) -> list[Action]:
        self.events += 1
        try:
            for action in actions:
                self._books_note(action)
            self._books_check()
        except Broken as broken:
            self.on_broken(f"after {event} ({self.events}): {broken}")
        return actions

    def _books_note(self, action: Action) -> None:
        match action:
            case Grant():
                _rule(action.ticket in self._books.wanted, "a grant for nobody")
                wanted, _ = self._books.wanted[action.ticket]
                _rule(action.runner_id in self._books.ready, "granted a runner that is not ready")
                loaded = self._books.alive[action.runner_id].spec
                _rule(reload_reason(loaded, wanted) is None, "granted an unsuitable runner")
                _rule(0 <= action.loaded_ns <= action.queued_ns, "impossible times")
                del self._books.wanted[action.ticket]
                self._books.held[action.ticket] = action.runner_id
            case Reject():
                _rule(action.ticket in self._books.wanted, "a refusal for nobody")
                del self._books.wanted[action.ticket]
            case Measure():
                self._books.measures += 1
            case Start():
                _rule(action.runner_id not in self._books.alive, "one runner started twice")
                self._books.alive[action.runner_id] = action
                self._books.loading.add(action.runner_id)
            case Abort():
                _rule(action.runner_id in self._books.loading, "aborted what does not load")
                self._books.loading.discard(action.runner_id)
                self._books.ending.add(action.runner_id)
            case Stop():
                runner = action.runner_id
                _rule(runner not in self._books.held.values(), "stopped a busy runner")
                known = runner in self._books.ready or runner in self._books.ending
                _rule(known, "stopped what is not there")
                self._books.ready.discard(runner)
                self._books.ending.add(runner)

    def _books_check(self) -> None:
        _rule(self.waiting == len(self._books.wanted), "a request was lost")
        _rule(self.leases == len(self._books.held), "a lease was lost")
        records = {record.id: record for record in self.runners()}
        _rule(set(records) == set(self._books.alive), "a runner was lost")
        _rule(len(records) <= self.limits.loaded_models, "more runners than are allowed")
        keys = {record.spec.key for record in records.values()}
        _rule(len(keys) == len(records), "two runners of one model")
        _rule(len(self._books.loading) <= 1, "two loads at a time")
        _rule(0 <= self._books.measures <= 1, "two readings at a time")
        held: dict[int, int] = {}
        for runner_id in self._books.held.values():
            held[runner_id] = held.get(runner_id, 0) + 1
        for record in records.values():
            _rule(record.leases == held.get(record.id, 0), "a runner miscounts its leases")
            _rule(0 <= record.busy <= record.plan.parallel, "more in work than there are slots")
            _rule(record.busy <= record.leases, "slots without leases")
            _rule(record.state in (State.LOADING, State.READY, State.STOPPING), "no known state")
        self._books_check_waiting(records)

    def _books_check_waiting(self, records: dict[int, RunnerRecord]) -> None:
        """Nobody waits for nothing, and nobody beside a free slot that is his."""
        if not self._books.wanted:
            return
        books = self._books
        under_way = books.held or books.loading or books.ending or books.measures
        _rule(bool(under_way) or self.deadline() is not None, "requests wait for nothing")
        free = {
            record.spec.key: record
            for record in records.values()
            if record.state is State.READY
            and record.condemned is None
            and record.busy < record.plan.parallel
        }
        seen: set[Hashable] = set()
        for wanted, _ in self._books.wanted.values():
            record = free.get(wanted.key)
            if record is None or id(wanted) in seen:
                continue
            seen.add(id(wanted))
            fits = reload_reason(record.spec, wanted) is None
            _rule(not fits, f"waits for {wanted.name} although there is a slot")


def _rule(holds: bool, message: str) -> None:
    if not holds:
        raise Broken(message)
