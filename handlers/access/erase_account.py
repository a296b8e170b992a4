"""Erases the person of an erased account, as an end user is erased: all that follows from that is the same."""

from __future__ import annotations

from domain.access.account import Account
from domain.access.end_user import EndUser
from domain.access.tenant import HOUSE
from domain.log import Commit, Subject, commit_id
from handlers.ports.people import People
from handlers.repository import Repository


class EraseAccount:
    def __init__(self, repository: Repository, people: People) -> None:
        self._repository = repository
        self._people = people

    async def __call__(self, commit: Commit) -> None:
        """React to the erasure of an account; may be done again. Raises: Unavailable."""
        person = commit.metadata.person
        if person is None or not any(isinstance(event, Account.Erased) for event in commit.events):
            return  # a service is no person
        await self._people.erase(HOUSE, person)
        cause = commit.metadata.caused(commit_id(commit.metadata.id, str(Subject(HOUSE, EndUser.TOPIC, person))))
        at = commit.events[-1].timestamp
        await self._repository.change(
            EndUser, person, cause, lambda known: known or EndUser.begin(EndUser.Erased, person, at, known=True)
        )
