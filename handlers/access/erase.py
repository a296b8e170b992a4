"""Erases a person: what is left of the words in places where they are not sealed goes, from the disks too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from domain.access.end_user import EndUser
from domain.log import Commit, Position
from handlers.ports.people import People

Scrub = Callable[[str, str, Position], Awaitable[None]]
"""Takes the words of a person (tenant, id), whose erasure stands at this position, out of one place for good.

Raises: Unavailable, to be called again.
"""


class Erase:
    def __init__(self, people: People, *scrubs: Scrub) -> None:
        self._people = people
        self._scrubs = scrubs

    async def __call__(self, commit: Commit) -> None:
        """React to an erasure, one place after the other; each may be done again. Raises: Unavailable."""
        tenant, person = commit.subject.tenant, commit.subject.id
        for event in commit.events:
            if isinstance(event, EndUser.Erased):
                await self._people.erase(tenant, person)
                for scrub in self._scrubs:
                    await scrub(tenant, person, commit.position)
