from __future__ import annotations

import pytest

from tests.memory import Memory


@pytest.fixture
def memory() -> Memory:
    """Memory that the handlers under test read and write: they need no server."""
    return Memory()
