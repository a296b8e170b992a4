"""Progress of long work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Takes the part that is worked at, how much of it is done, and how much there is."""


def no_progress(part: str, done: int, total: int) -> None:
    """Ignore progress."""
