from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _public_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of these tests count as public ones, whose errors are shown."""
    monkeypatch.setattr("adapters.egress.client.is_public", lambda ip: True)
