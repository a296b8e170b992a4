"""How far long work is, for whoever looks at it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told which part is worked at, how much of it is done, and how much there is."""


def no_progress(part: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""
