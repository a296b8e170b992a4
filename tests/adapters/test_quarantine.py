from __future__ import annotations

import pytest

from adapters.postgres.quarantine import version
from projections.catalog import KNOWN


def test_a_new_version_of_an_event_is_another_version() -> None:
    class Old:
        TOPIC = "app.configured.v2"

    class New:
        TOPIC = "app.configured.v3"

    Old.__qualname__ = New.__qualname__ = "App.Configured"
    assert version([Old]) != version([New])


@pytest.mark.parametrize("event", sorted(KNOWN, key=repr))
def test_every_event_counts(event: type) -> None:
    assert version(KNOWN - {event}) != version(KNOWN)
