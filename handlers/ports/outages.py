"""Port of outages: which providers do not answer, as all workers know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outage:
    """A provider that does not answer. It is not called before `until`, in Unix seconds.

    `failures` counts the calls in a row that failed, `reason` is the last fault. `pause_s` is the length of the current
    pause, in seconds. `probe` names the one call that is let through, if there is one. `asked`: the server has
    asked for the pause.
    """

    reason: str
    failures: int
    pause_s: float
    until: float
    probe: str = ""
    asked: bool = False


Decide = Callable[[Outage | None], Outage | None]


class Outages(Protocol):
    """A provider is named by a token of letters and digits. A process hears of changes that others make."""

    def known(self, tenant: str, provider: str) -> Outage | None:
        """The outage as this process has last read or heard of it, at no cost."""
        ...

    async def change(self, tenant: str, provider: str, decide: Decide) -> Outage | None:
        """Replace the outage by the one that `decide` returns, and return that; None ends it.

        `decide` gets the newest one, again when another process was quicker; where it returns what it got, nothing is
        written. Raises: Unavailable.
        """
        ...
