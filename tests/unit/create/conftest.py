"""A store in a temporary directory for creates."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.creating import Creator, G

from ollamad.store.store import Store


@pytest.fixture
def creator(tmp_path: Path) -> Creator:
    return Creator(Store(tmp_path / "models", prune=True))


@pytest.fixture
async def with_a(creator: Creator) -> Creator:
    """A store that holds model ``a``, made from ``G``."""
    await creator.events(model="a", files={"test.gguf": creator.upload(G)})
    return creator
