"""What tests of pushes stand on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.push_stage import new_store, without_threads
from support.scripted_http import Script
from trio.testing import MockClock

from ollamad.store.store import Store


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Every test that waits asks for it, so that waits cost nothing."""
    without_threads(monkeypatch)
    return MockClock(autojump_threshold=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


@pytest.fixture
def script() -> Script:
    return Script()
