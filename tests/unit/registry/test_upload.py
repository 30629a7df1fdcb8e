"""The upload planner by itself: what it asks for, when, and what it makes of each answer."""

from __future__ import annotations

import hashlib
import math

import pytest

from ollamad.errors import OllamadError
from ollamad.registry.parts import cut
from ollamad.registry.upload import (
    Action,
    Commit,
    Open,
    Patch,
    Put,
    Reply,
    Upload,
    UploadTiming,
)
from ollamad.registry.upload_forms import etag

TIMING = UploadTiming()


class Run:
    """An upload of ``total`` bytes with a clock of its own."""

    def __init__(self, total: int, size: int = 100, timing: UploadTiming = TIMING) -> None:
        self.now = 0.0
        self.parts = cut(total, least=size, most=size)
        self.upload = Upload(self.parts, 0.0, timing)

    def due(self) -> list[Action]:
        return self.upload.due(self.now)

    def only(self) -> Action:
        (action,) = self.due()
        return action

    def wait(self) -> float:
        """Moves the clock to the next thing to do."""
        assert math.isfinite(self.upload.wake_at)
        self.now = self.upload.wake_at
        return self.now

    def open(self, url: str = "u0") -> None:
        assert self.only() == Open()
        self.upload.opened(self.now, url)

    def patch(self, number: int, url: str) -> Patch:
        action = self.only()
        assert action == Patch(self.parts[number], url)
        self.upload.accepted(action.part, action.part.size)
        return action

    def stored(self, action: Patch | Put, session: str | None = None) -> None:
        reply = Reply(status=202 if session else 200, session=session)
        self.upload.answered(self.now, action, reply, md5_of(action))

    def refused(self, action: Patch | Put, status: int = 500, **more: float) -> None:
        reply = Reply(status=status, reason="No", body="boom", **more)  # type: ignore[arg-type]
        self.upload.answered(self.now, action, reply, md5_of(action))

    def redirected(self, action: Patch | Put, to: str = "store", session: str = "next") -> None:
        reply = Reply(status=307, location=to, session=session)
        self.upload.answered(self.now, action, reply, None)


def md5_of(action: Patch | Put) -> bytes:
    return hashlib.md5(b"%d" % action.part.number, usedforsecurity=False).digest()


def tag(*numbers: int) -> str:
    return etag([hashlib.md5(b"%d" % n, usedforsecurity=False).digest() for n in numbers])


def test_parts_take_the_session_url_in_turn() -> None:
    run = Run(250)
    run.open("u0")
    for number in range(3):
        action = run.patch(number, f"u{number}")
        assert run.due() == []
        run.stored(action, f"u{number + 1}")
    assert run.only() == Commit("u3", tag(0, 1, 2))
    run.upload.committed()
    assert run.upload.done
    assert run.upload.completed == 250


def test_an_empty_blob_is_only_committed() -> None:
    run = Run(0)
    run.open("u0")
    assert run.only() == Commit("u0", "d41d8cd98f00b204e9800998ecf8427e-0")


def test_a_mounted_blob_is_complete() -> None:
    run = Run(250)
    assert run.only() == Open()
    run.upload.mounted()
    assert run.upload.done
    assert run.upload.completed == 250
    assert run.due() == []


@pytest.mark.parametrize("passing", [False, True])
def test_the_first_opening_is_not_repeated(passing: bool) -> None:
    run = Run(250)
    assert run.only() == Open()
    run.upload.not_opened(0, OllamadError("500: page"), passing=passing)
    assert run.upload.error is not None
    assert run.upload.error.message == "500: page"


def test_a_session_without_url_fails_at_once() -> None:
    run = Run(250)
    assert run.only() == Open()
    run.upload.opened(0, None)
    assert str(run.upload.error) == "http: no Location header in response"


def test_a_stored_part_without_the_next_url_fails_at_once() -> None:
    run = Run(250)
    run.open()
    run.stored(run.patch(0, "u0"), None)
    assert str(run.upload.error) == "http: no Location header in response"


def test_redirected_parts_overlap_and_are_committed_when_all_are_stored() -> None:
    run = Run(250)
    run.open("u0")
    puts: list[Put] = []
    for number in range(3):
        # The next part does not wait for the store.
        patch = Patch(run.parts[number], f"u{number}")
        assert run.due() == [*puts[-1:], patch]
        run.upload.accepted(patch.part, 50)
        before = run.upload.completed
        run.redirected(patch, f"store{number}", f"u{number + 1}")
        assert run.upload.completed < before
        puts.append(Put(patch.part, f"store{number}"))
    assert run.due() == [puts[2]]
    for put in reversed(puts):
        assert run.due() == []
        run.upload.accepted(put.part, put.part.size)
        run.stored(put)
    assert run.only() == Commit("u3", tag(0, 1, 2))
    assert run.upload.completed == 250


def test_no_more_parts_are_under_way_than_allowed() -> None:
    run = Run(2000)
    run.open("u0")
    under_way = 0
    first: Put | None = None
    while True:
        actions = run.due()
        patches = [action for action in actions if isinstance(action, Patch)]
        puts = [action for action in actions if isinstance(action, Put)]
        first = first or next(iter(puts), None)
        under_way += len(puts)
        if not patches:
            break
        run.redirected(patches[0])
    assert under_way == 16
    assert first is not None
    run.stored(first)
    assert isinstance(run.only(), Patch)


def test_a_redirected_part_goes_out_again_where_it_went_first() -> None:
    run = Run(100)
    run.open()
    run.redirected(run.patch(0, "u0"), "store")
    put = run.only()
    assert put == Put(run.parts[0], "store")
    run.redirected(put, "elsewhere")
    moved = run.only()
    assert moved == Put(run.parts[0], "elsewhere", 1)
    run.refused(moved, 503)
    assert run.wait() == 1
    assert run.only() == put


def test_the_store_may_redirect_ten_times() -> None:
    run = Run(100)
    run.open()
    run.redirected(run.patch(0, "u0"), "store")
    for hop in range(10):
        put = run.only()
        assert isinstance(put, Put)
        assert put.hops == hop
        run.redirected(put, f"store{hop}")
    last = run.only()
    assert isinstance(last, Put)
    run.redirected(last, "store10")
    assert run.due() == []
    assert run.wait() == 1
    assert run.only() == Put(run.parts[0], "store")


@pytest.mark.parametrize("status", [301, 302, 303, 304])
def test_other_redirects_of_the_store_are_failures(status: int) -> None:
    run = Run(100)
    run.open()
    run.redirected(run.patch(0, "u0"), "store")
    put = run.only()
    assert isinstance(put, Put)
    run.refused(put, status)
    assert run.due() == []
    assert run.wait() == 1


def test_a_store_that_always_refuses_ends_the_upload_after_63_seconds() -> None:
    run = Run(100)
    run.open()
    run.redirected(run.patch(0, "u0"), "store")
    times = []
    for _ in range(6):
        put = run.only()
        assert isinstance(put, Put)
        times.append(run.now)
        run.refused(put)
        run.wait()
    assert times == [0, 1, 3, 7, 15, 31]
    assert run.now == 63
    assert run.upload.error is None
    assert run.due() == []
    assert str(run.upload.error) == "max retries exceeded: http status 500 No: boom"


def test_a_redirecting_registry_gets_a_failed_part_on_the_same_url() -> None:
    run = Run(250)
    run.open("u0")
    run.redirected(run.patch(0, "u0"), "store", "u1")
    patch = next(action for action in run.due() if isinstance(action, Patch))
    run.refused(patch)
    assert run.wait() == 1
    assert run.only() == Patch(run.parts[1], "u1")


def test_a_plain_registry_gets_a_new_session_for_a_part_that_it_may_have_kept() -> None:
    run = Run(250)
    run.open("u0")
    run.stored(run.patch(0, "u0"), "u1")
    patch = run.patch(1, "u1")
    assert run.upload.completed == 200
    run.refused(patch)
    assert run.upload.completed == 0
    assert run.due() == []
    assert run.wait() == 1
    run.open("v0")
    for number in range(3):
        run.stored(run.patch(number, f"v{number}"), f"v{number + 1}")
    assert run.only() == Commit("v3", tag(0, 1, 2))


def test_a_part_of_which_nothing_was_sent_goes_out_again_on_the_same_url() -> None:
    run = Run(250)
    run.open("u0")
    run.stored(run.patch(0, "u0"), "u1")
    patch = run.only()
    assert isinstance(patch, Patch)
    run.upload.broken(0, patch, OllamadError("Patch: refused"), began=False)
    assert run.upload.completed == 100
    assert run.wait() == 1
    assert run.only() == patch


def test_delays_go_on_growing_in_a_new_session() -> None:
    run = Run(100)
    run.open("u0")
    patch = run.only()
    assert isinstance(patch, Patch)
    for waits in (1, 2, 4):
        run.upload.broken(run.now, patch, OllamadError("refused"), began=False)
        before = run.now
        assert run.wait() - before == waits
        assert run.only() == patch
    run.refused(patch)
    before = run.now
    assert run.wait() - before == 8
    assert run.only() == Open()


def test_a_connection_lost_in_a_part_is_a_new_session() -> None:
    run = Run(100)
    for session, started in (("u", 0), ("v", 1), ("w", 3)):
        assert run.now == started
        run.open(session)
        patch = run.patch(0, session)
        if session != "w":
            run.upload.broken(run.now, patch, OllamadError("lost"), began=True)
            assert run.upload.completed == 0
            run.wait()
    run.stored(patch, "w1")
    assert run.only() == Commit("w1", tag(0))


@pytest.mark.parametrize("status", [401, 429])
def test_what_was_refused_unread_goes_out_again_on_the_same_url(status: int) -> None:
    run = Run(250)
    run.open("u0")
    run.stored(run.patch(0, "u0"), "u1")
    run.refused(run.patch(1, "u1"), status)
    assert run.upload.completed == 100
    assert run.wait() == 1
    assert run.only() == Patch(run.parts[1], "u1")


@pytest.mark.parametrize(
    ("status", "asked", "waits"),
    [(429, 9, 9), (503, 9, 9), (429, 3600, 60), (429, 0, 1), (500, 9, 1)],
)
def test_how_long_a_registry_may_ask_to_wait(status: int, asked: float, waits: float) -> None:
    run = Run(100)
    run.open()
    run.refused(run.patch(0, "u0"), status, retry_after=asked)
    assert run.wait() == waits


def test_a_registry_that_always_refuses_gets_six_sessions_in_63_seconds() -> None:
    run = Run(100)
    times = []
    for attempt in range(6):
        run.open(f"u{attempt}")
        times.append(run.now)
        run.refused(run.patch(0, f"u{attempt}"))
        run.wait()
    assert times == [0, 1, 3, 7, 15, 31]
    assert run.now == 63
    assert run.upload.error is None
    assert run.due() == []
    assert str(run.upload.error) == "max retries exceeded: http status 500 No: boom"


def test_six_sessions_are_all_whatever_part_fails() -> None:
    run = Run(700)
    for session in range(6):
        run.open(f"u{session}.0")
        for number in range(session):
            run.stored(run.patch(number, f"u{session}.{number}"), f"u{session}.{number + 1}")
        run.refused(run.patch(session, f"u{session}.{session}"))
        run.wait()
    assert run.now == 63
    assert run.due() == []
    assert run.upload.error is not None


def test_a_new_session_that_cannot_be_opened_is_tried_again() -> None:
    run = Run(100)
    run.open()
    run.refused(run.patch(0, "u0"))
    times = []
    while run.upload.error is None:
        run.wait()
        if run.due():
            times.append(run.now)
            run.upload.not_opened(run.now, OllamadError("Post: refused"), passing=True)
    assert times == [1, 3, 7, 15, 31]
    assert run.now == 63
    assert str(run.upload.error) == "max retries exceeded: Post: refused"


def test_a_new_session_that_is_denied_ends_the_upload() -> None:
    run = Run(100)
    run.open()
    run.refused(run.patch(0, "u0"))
    run.wait()
    assert run.only() == Open()
    run.upload.not_opened(1, OllamadError("403: no"), passing=False)
    assert str(run.upload.error) == "403: no"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=302, location="elsewhere", session="elsewhere"),
        Reply(status=308, location="elsewhere", session="elsewhere"),
        Reply(status=307),
        Reply(status=307, session="next"),
        Reply(status=304),
    ],
)
def test_other_redirects_of_a_part_are_failures(reply: Reply) -> None:
    run = Run(100)
    run.open()
    patch = run.patch(0, "u0")
    run.upload.answered(0, patch, reply, md5_of(patch))
    assert run.due() == []
    assert run.wait() == 1
    assert run.only() == Open()


def test_a_part_stored_before_it_was_sent_is_a_failure() -> None:
    run = Run(100)
    run.open()
    run.upload.answered(0, run.patch(0, "u0"), Reply(status=202, session="u1"), None)
    assert run.wait() == 1
    assert run.only() == Open()


def test_progress_falls_back_and_ends_at_the_size() -> None:
    run = Run(250)
    run.open("u0")
    run.redirected(run.patch(0, "u0"), "s0", "u1")
    put, patch = run.due()
    assert isinstance(put, Put)
    assert isinstance(patch, Patch)
    run.upload.accepted(put.part, 60)
    run.upload.broken(0, put, OllamadError("lost"), began=True)
    assert run.upload.completed == 0
    run.wait()
    run.upload.accepted(put.part, 100)
    run.stored(put)
    assert run.upload.completed == 100


def commits(lost: bool) -> tuple[Run, list[Commit], list[float]]:
    run = Run(0)
    run.open()
    seen, times = [], []
    while run.upload.error is None:
        for action in run.due():
            assert isinstance(action, Commit)
            seen.append(action)
            times.append(run.now)
            run.upload.not_committed(run.now, action, OllamadError("500: late"), lost=lost)
        if run.upload.error is None:
            run.wait()
    return run, seen, times


def test_a_commit_is_tried_six_times_and_its_error_comes_as_it_is() -> None:
    run, seen, times = commits(lost=False)
    assert times == [0, 1, 3, 7, 15, 31]
    assert run.now == 63
    assert str(run.upload.error) == "500: late"
    assert len(set(seen)) == 1


def test_after_a_lost_answer_a_commit_is_unsure() -> None:
    _, seen, _ = commits(lost=True)
    assert [action.unsure for action in seen] == [False, True, True, True, True, True]


def test_a_delayed_commit_may_be_asked_to_wait_longer() -> None:
    run = Run(0)
    run.open()
    action = run.only()
    assert isinstance(action, Commit)
    run.upload.not_committed(0, action, OllamadError("503: "), lost=False, asked=20)
    assert run.wait() == 20
