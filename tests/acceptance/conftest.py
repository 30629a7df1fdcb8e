"""A daemon with a chat model and an embedding model, for real clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.daemon import Daemon, running
from support.minilm import minilm
from support.models import smollm2


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Models ``smollm2`` and ``all-minilm``."""
    chat = smollm2()
    embedder = minilm(tmp_path_factory.mktemp("minilm") / "all-minilm.gguf")
    with running(tmp_path_factory.mktemp("daemon")) as daemon:
        daemon.create("smollm2", chat)
        daemon.create("all-minilm", embedder)
        yield daemon
