"""Erases the person of an erased account as an end user: all that follows is the same. The key is gone already."""

from __future__ import annotations

from domain.access.account import Account
from domain.access.end_user import EndUser
from domain.access.tenant import HOUSE
from domain.log import Commit, Subject
from handlers.repository import Repository


class EraseAccount:
    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def __call__(self, commit: Commit) -> None:
        """React to the erasure of an account; may be done again. Raises: Unavailable."""
        person = commit.metadata.person
        if person is None or not any(isinstance(event, Account.Erased) for event in commit.events):
            return  # a service is no person
        cause = commit.metadata.on(Subject(HOUSE, EndUser.TOPIC, person))
        at = commit.events[-1].timestamp
        await self._repository.change(
            EndUser, person, cause, lambda known: known or EndUser.begin(EndUser.Erased, person, at, known=True)
        )
