"""What is asked for next while a blob arrives: decided without a network, on a clock of paper."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from ollamad.registry.download import Ask, Broken, Download, Interrupted, Timing, retry_after, unfit
from ollamad.registry.parts import Part, cut

MB = 1_000_000


@dataclass
class Reply:
    """``pieces``: (seconds after the request, bytes); ``end`` comes ``after`` seconds, or never."""

    pieces: list[tuple[float, int]] = field(default_factory=list)
    end: Broken | None = None
    after: float = 0.0


@dataclass
class World:
    """Runs a plan against ``answer``, as the shell would, with a look every second."""

    parts: list[Part]
    answer: Callable[[Ask, int], Reply]
    timing: Timing = field(default_factory=Timing)
    now: float = 0.0
    asked: list[tuple[float, Ask]] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        self.plan = Download(self.parts, self.now, self.timing)
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._attempts: dict[int, int] = {}  # the number of the attempt that is running
        self._at(1.0, self._look)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), what))

    def _look(self) -> None:
        self._at(self.now + 1.0, self._look)
        for number, end in self.plan.look(self.now).items():
            self._end(number, self._attempts[number], end)

    def _end(self, number: int, attempt: int, end: Broken | Interrupted) -> None:
        if self._attempts.get(number) == attempt:
            del self._attempts[number]
            self.plan.ended(number, end, self.now)

    def _piece(self, number: int, attempt: int, count: int) -> None:
        if self._attempts.get(number) == attempt:
            self.plan.received(number, count, self.now)
            self.plan.writing(number)
            self.plan.written(number, count, self.now)
            if self.plan.parts[number].is_complete:
                self._end(number, attempt, Broken("whole"))

    def run(self, until: float = 1e6) -> World:
        plan = self.plan
        while not plan.is_complete and plan.error is None and self.now < until:
            if plan.needs_url:
                plan.renewed()
            for ask in plan.start(self.now):
                attempt = len(self.asked)
                self.asked.append((self.now, ask))
                self._attempts[ask.number] = attempt
                self.most = max(self.most, len(self._attempts))
                reply = self.answer(ask, len([1 for _, a in self.asked if a.number == ask.number]))
                for delay, count in reply.pieces:
                    self._at(
                        self.now + delay,
                        lambda n=ask.number, a=attempt, c=count: self._piece(n, a, c),
                    )
                if reply.end is not None:
                    self._at(
                        self.now + reply.after,
                        lambda n=ask.number, a=attempt, e=reply.end: self._end(n, a, e),
                    )
            if plan.error is not None:
                break
            wake = plan.wake_at(self.now)
            if wake <= self._queue[0][0]:
                self.now = wake
            else:
                self.now, _, what = heapq.heappop(self._queue)
                what()
        return self

    @property
    def requests(self) -> list[tuple[float, str]]:
        return [(at, ask.range.removeprefix("bytes=")) for at, ask in self.asked]


def closed(count: int) -> Reply:
    return Reply([(0, count)], Broken("unexpected EOF"))


ONE = [Part(0, 0, 250)]
EOF = Broken("unexpected EOF")


# --- the rows of registry-and-store 10.8 ----------------------------------------------------------


def test_closed_in_the_middle_three_times() -> None:
    world = World(ONE, lambda ask, n: closed(60) if n <= 3 else Reply([(0, 70)])).run()
    assert world.requests == [(0, "0-249"), (1, "60-249"), (3, "120-249"), (7, "180-249")]
    assert world.plan.is_complete


@pytest.mark.parametrize("code", [500, 416, 400])
def test_a_part_that_always_fails(code: int) -> None:
    refused = Broken(f"unexpected status code {code}", code)
    world = World(ONE, lambda ask, n: Reply(end=refused)).run()
    assert [at for at, _ in world.asked] == [0, 1, 3, 7, 15, 31]
    assert world.now == 63
    assert world.plan.error == f"max retries exceeded: unexpected status code {code}"


def test_a_stalled_part_goes_on_where_it_was() -> None:
    replies = [Reply(), Reply([(1, 100)]), Reply([(0, 150)])]
    world = World(ONE, lambda ask, n: replies[n - 1]).run()
    assert world.requests == [(0, "0-249"), (30, "0-249"), (61, "100-249")]


def test_stalls_are_not_counted() -> None:
    world = World(ONE, lambda ask, n: Reply() if n % 20 else Reply([(0, 10)], after=1)).run(20000)
    assert world.plan.completed == 250
    assert [at for at, _ in world.asked][:20] == [30 * n for n in range(20)]


def test_ten_minutes_of_silence_are_an_error_in_the_end() -> None:
    world = World(ONE, lambda ask, n: Reply()).run()
    assert world.plan.error == "max retries exceeded: part 0 stalled"
    # Twenty uncounted stalls, then six that are counted, with the delays of failures.
    assert len(world.asked) == 26
    assert world.now == 26 * 30 + 63


def test_the_second_part_fails_while_the_first_receives() -> None:
    parts = [Part(0, 0, 10**6), Part(1, 10**6, 10)]

    def answer(ask: Ask, n: int) -> Reply:
        return Reply([(i, 5000) for i in range(90)]) if ask.number == 0 else Reply(end=EOF)

    world = World(parts, answer).run()
    assert 63 <= world.now <= 64
    assert world.plan.error == "max retries exceeded: unexpected EOF"
    # What the first brought is kept.
    assert world.plan.parts[0].completed == 5000 * 63
    assert world.plan.unnoted() == [world.plan.parts[0]]


def test_one_byte_is_a_part() -> None:
    world = World([Part(0, 0, 1)], lambda ask, n: Reply([(0.01, 1)])).run()
    assert (world.now, world.plan.is_complete) == (0.01, True)


def test_a_resumed_part_asks_for_the_rest() -> None:
    parts = [Part(0, 0, 100 * MB, 100 * MB), Part(1, 100 * MB, 100 * MB, 60 * MB)]
    world = World(parts, lambda ask, n: Reply([(0, 40 * MB)])).run()
    assert world.requests == [(0, "160000000-199999999")]


# --- a bad line -----------------------------------------------------------------------------------


def test_a_long_pull_over_a_bad_line_ends() -> None:
    """Two hundred broken connections, each of which brought a megabyte."""
    world = World([Part(0, 0, 200 * MB)], lambda ask, n: closed(MB)).run()
    assert world.plan.is_complete
    # And the wait does not grow while it gets on.
    assert world.now == 199


def test_small_progress_is_no_failure_but_patience_grows() -> None:
    world = World([Part(0, 0, 1600)], lambda ask, n: closed(100)).run()
    assert world.plan.is_complete
    assert [at for at, _ in world.asked][:8] == [0, 1, 3, 7, 15, 31, 63, 95]


def test_next_to_no_progress_is_failure() -> None:
    world = World([Part(0, 0, 1600)], lambda ask, n: closed(99)).run()
    assert world.plan.error == "max retries exceeded: unexpected EOF"
    assert len(world.asked) == 6


def test_the_last_error_is_told() -> None:
    errors = [EOF] * 5 + [Broken("unexpected status code 502", 502)]
    world = World(ONE, lambda ask, n: Reply(end=errors[n - 1])).run()
    assert world.plan.error == "max retries exceeded: unexpected status code 502"


def test_what_completes_a_part_is_no_failure() -> None:
    world = World(ONE, lambda ask, n: Reply([(0, 250)], EOF, after=0)).run()
    assert world.plan.is_complete
    assert len(world.asked) == 1


# --- what a registry asks for ---------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "waited"), [(0, 1), (7, 7), (60, 60), (3600, 60)])
def test_retry_after_is_honoured_within_reason(asked: float, waited: float) -> None:
    busy = Broken("unexpected status code 429", 429, retry_after=asked)
    world = World(ONE, lambda ask, n: Reply(end=busy) if n == 1 else Reply([(0, 250)])).run()
    assert [at for at, _ in world.asked] == [0, waited]


def test_a_busy_registry_gets_fewer_connections() -> None:
    busy = Broken("unexpected status code 503", 503)
    parts = cut(1600 * MB)

    def answer(ask: Ask, n: int) -> Reply:
        return Reply(end=busy) if (ask.number, n) == (0, 1) else Reply([(10, ask.size)])

    world = World(parts, answer)
    world.run(until=5)
    assert world.plan.connections == 2
    world.run()
    assert world.plan.is_complete


@pytest.mark.parametrize("code", [401, 403, 410])
def test_an_expired_url_is_asked_for_again(code: int) -> None:
    plan = Download(cut(300 * MB), 0)
    asks = plan.start(0)
    assert len(asks) == 3
    plan.ended(0, Broken("expired", code), 5)
    assert plan.needs_url
    assert plan.start(100) == []
    plan.renewed()
    assert [ask.number for ask in plan.start(100)] == [0]
    # The others were sent with the old one: their refusals say nothing of the new one.
    plan.ended(1, Broken("expired", code), 100)
    assert not plan.needs_url
    plan.ended(0, Broken("expired", code), 100)
    assert plan.needs_url


def test_other_failures_need_no_new_url() -> None:
    plan = Download(ONE, 0)
    plan.start(0)
    plan.ended(0, Broken("unexpected status code 500", 500), 0)
    assert not plan.needs_url


# --- connections ----------------------------------------------------------------------------------


def steady(rate: float) -> Callable[[Ask, int], Reply]:
    """Each connection brings ``rate`` bytes a second."""

    def answer(ask: Ask, n: int) -> Reply:
        step = max(1, int(rate / 10))
        count, rest = divmod(ask.size, step)
        pieces = [(0.1 * (i + 1), step) for i in range(count)]
        return Reply([*pieces, (0.1 * (count + 1), rest)] if rest else pieces)

    return answer


def test_a_fast_line_needs_four_connections_in_order() -> None:
    world = World(cut(3200 * MB), steady(50 * MB)).run()
    assert world.most == 4
    assert [ask.number for _, ask in world.asked] == list(range(16))


def test_a_slow_line_gets_more_but_never_more_than_sixteen() -> None:
    world = World(cut(20_000 * MB), steady(2 * MB))
    world.run(until=1.5)
    assert world.most == 4
    world.run(until=60)
    assert world.most == 16
    assert sorted({ask.number for _, ask in world.asked}) == list(range(16))


def test_few_parts_need_no_more_connections() -> None:
    world = World(cut(250 * MB), steady(2 * MB)).run()
    assert world.most == 3


# --- dripping -------------------------------------------------------------------------------------


def drip(seconds: int, count: int) -> Reply:
    return Reply([(float(i + 1), count) for i in range(seconds)])


def test_a_part_far_slower_than_the_others_is_asked_for_again() -> None:
    parts = [Part(n, n * 500 * MB, 500 * MB) for n in range(4)]

    def answer(ask: Ask, n: int) -> Reply:
        if (ask.number, n) == (2, 1):
            return drip(500, 5000)
        return steady(10 * MB)(ask, n)

    world = World(parts, answer).run()
    again = [(at, ask) for at, ask in world.asked if ask.number == 2]
    assert len(again) == 2
    assert 15 <= again[1][0] <= 17
    # What it had brought is kept.
    assert again[1][1].first == parts[2].offset + 5000 * int(again[1][0])
    assert world.plan.is_complete


def test_the_last_part_is_measured_by_those_before_it() -> None:
    """The crawl at 99 %: nothing runs beside it."""
    parts = [Part(0, 0, 100 * MB), Part(1, 100 * MB, 100 * MB)]

    def answer(ask: Ask, n: int) -> Reply:
        if ask.number == 1 and n == 1:
            return Reply([(float(i + 1), MB if i < 40 else 2000) for i in range(3000)])
        return steady(10 * MB)(ask, n)

    world = World(parts, answer).run()
    assert world.plan.is_complete
    assert world.now < 75


def test_one_that_stays_slow_is_left_alone_after_three_tries() -> None:
    parts = [Part(0, 0, 100 * MB), Part(1, 100 * MB, MB)]

    def answer(ask: Ask, n: int) -> Reply:
        return drip(2000, 2000) if ask.number == 1 else steady(10 * MB)(ask, n)

    world = World(parts, answer).run()
    assert world.plan.is_complete
    assert len([1 for _, ask in world.asked if ask.number == 1]) == 4


def test_alone_less_than_a_kilobyte_a_second_is_too_slow() -> None:
    world = World(
        [Part(0, 0, MB)], lambda ask, n: drip(1000, 1000) if n == 1 else steady(MB)(ask, n)
    ).run()
    assert world.requests[0] == (0, "0-999999")
    assert 60 <= world.requests[1][0] <= 62
    assert world.plan.is_complete


def test_alone_a_slow_line_is_what_it_is() -> None:
    world = World([Part(0, 0, MB)], lambda ask, n: drip(500, 2000)).run()
    assert len(world.asked) == 1


def test_our_own_disk_is_not_held_against_a_connection() -> None:
    plan = Download([Part(0, 0, 10 * MB)], 0)
    plan.start(0)
    plan.received(0, MB, 1)
    plan.writing(0)
    assert plan.look(100) == {}
    plan.written(0, MB, 100)
    assert plan.look(129) == {}
    assert plan.look(130) == {0: Interrupted("part 0 stalled")}


# --- what is there --------------------------------------------------------------------------------


def test_the_prefix_has_no_gap() -> None:
    plan = Download([Part(0, 0, 10, 10), Part(1, 10, 10, 3), Part(2, 20, 10, 10)], 0)
    assert plan.prefix() == 13
    assert (plan.total, plan.completed) == (30, 23)
    plan.start(0)
    plan.received(1, 7, 1)
    plan.writing(1)
    plan.written(1, 7, 1)
    assert plan.prefix() == 30
    assert plan.is_complete


def test_only_what_changed_is_noted() -> None:
    plan = Download([Part(0, 0, 10), Part(1, 10, 10, 5)], 0)
    assert plan.unnoted() == []
    plan.start(0)
    plan.received(1, 2, 1)
    plan.writing(1)
    plan.written(1, 2, 1)
    [part] = plan.unnoted()
    assert part == Part(1, 10, 10, 7)
    plan.received(1, 1, 2)
    plan.writing(1)
    plan.written(1, 1, 2)
    plan.noted([part])  # meanwhile there was more
    assert plan.unnoted() == [Part(1, 10, 10, 8)]


def test_an_empty_blob_is_complete() -> None:
    plan = Download([], 0)
    assert plan.is_complete
    assert (plan.start(0), plan.prefix()) == ([], 0)


def test_the_first_reason_to_fail_counts() -> None:
    plan = Download(ONE, 0)
    plan.fail("write: no space left on device")
    plan.fail("another")
    assert plan.error == "write: no space left on device"
    assert plan.start(0) == []


# --- answers --------------------------------------------------------------------------------------

REST = Ask(0, 60, 249)
WHOLE = Ask(0, 0, 249)


@pytest.mark.parametrize(
    ("ask", "status", "headers"),
    [
        (REST, 206, {"content-range": "bytes 60-249/250", "content-length": "190"}),
        (REST, 206, {"content-range": "bytes 60-249/*"}),
        (WHOLE, 206, {"content-range": "bytes 0-249/250", "content-encoding": "identity"}),
        (WHOLE, 200, {"content-length": "250"}),
        (WHOLE, 200, {}),
    ],
)
def test_answers_that_fit(ask: Ask, status: int, headers: Mapping[str, str]) -> None:
    assert unfit(status, headers, ask, 250) is None


@pytest.mark.parametrize(
    ("ask", "status", "headers", "text"),
    [
        (WHOLE, 500, {}, "unexpected status code 500"),
        (WHOLE, 204, {}, "unexpected status code 204"),
        (WHOLE, 301, {}, "unexpected status code 301"),
        (WHOLE, 429, {"content-length": "250"}, "unexpected status code 429"),
        (REST, 200, {"content-length": "250"}, "ignores the requested range"),
        (Ask(0, 0, 99), 200, {"content-length": "100"}, "ignores the requested range"),
        (REST, 206, {}, "another range"),
        (REST, 206, {"content-range": "bytes 0-189/250"}, "another range"),
        (REST, 206, {"content-range": "bytes 60-159/250"}, "another range"),
        (REST, 206, {"content-range": "bytes 60-249"}, "another range"),
        (REST, 206, {"content-range": "items 60-249/250"}, "another range"),
        (REST, 206, {"content-range": "bytes 60-249/251"}, "251 bytes of the blob, not 250"),
        (
            WHOLE,
            206,
            {"content-range": "bytes 0-249/250", "content-length": "100"},
            "sends 100 bytes, not 250",
        ),
        (WHOLE, 200, {"content-length": "251"}, "sends 251 bytes, not 250"),
        (WHOLE, 200, {"content-encoding": "gzip"}, "compressed"),
    ],
)
def test_answers_that_must_not_reach_the_file(
    ask: Ask, status: int, headers: Mapping[str, str], text: str
) -> None:
    broken = unfit(status, headers, ask, 250)
    assert broken is not None
    assert text in broken.text


def test_a_refusal_says_how_long_to_wait() -> None:
    broken = unfit(429, {"retry-after": "17"}, WHOLE, 250)
    assert broken == Broken("unexpected status code 429", 429, 17.0)


@pytest.mark.parametrize("text", ["", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1.5", "9" * 30])
def test_what_is_no_number_of_seconds_is_no_wait(text: str) -> None:
    assert retry_after({"retry-after": text}) == 0
