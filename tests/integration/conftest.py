"""One daemon with SmolLM2 for the tests that only read, and a maker of daemons for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, running
from support.fake import FakeDaemon, running_fake
from support.models import smollm2


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that has ``smollm2``, which uses its own chat template; shared, so leave it as you
    found it."""
    gguf = smollm2()
    with running(tmp_path_factory.mktemp("daemon"), {"OLLAMA_GO_TEMPLATE": "0"}) as daemon:
        daemon.create("smollm2", gguf)
        yield daemon


@pytest.fixture(scope="session")
def fake_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDaemon]:
    """A daemon on stand-in runners, far from Greenwich. Shared: give your models your own names."""
    home = tmp_path_factory.mktemp("fake") / "home"
    with running_fake(home, TZ="America/New_York") as daemon:
        yield daemon


@pytest.fixture
def fake(fake_daemon: FakeDaemon) -> Iterator[FakeDaemon]:
    """The same, with runners that do what ``fake.will`` says until the end of the test."""
    deaths = fake_daemon.log.count("runner ended pid")
    yield fake_daemon
    fake_daemon.will()
    if fake_daemon.log.count("runner ended pid") > deaths:
        fake_daemon.forgive()


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """``make_daemon(**env)`` starts a daemon of the test's own; all are stopped afterwards."""
    daemons: list[Daemon] = []

    def make(home: Path | None = None, **env: str) -> Daemon:
        daemon = Daemon(home or tmp_path / f"home{len(daemons)}", env)
        daemons.append(daemon)
        return daemon.start()

    yield make
    for daemon in daemons:
        daemon.stop()
