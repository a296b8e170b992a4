"""Users of contained processes, where root starts them."""

from __future__ import annotations

import secrets

_FIRST, _COUNT = 1_000_000_000, 1_000_000_000
"""Ids that no distribution, container engine or directory service hands out."""


def own_user() -> int:
    """The id of a user and group for one process: its limits count it alone, and it owns no file."""
    return _FIRST + secrets.randbelow(_COUNT)
