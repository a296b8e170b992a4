"""Ends the sessions of an account that was disabled, erased, or signed out everywhere.

Doors refuse them already, by the register. This deletes their entries, with the addresses in them.
"""

from __future__ import annotations

from domain.access.account import Account
from domain.access.actor import account
from domain.log import Commit
from handlers.ports.access import SignIns


class EndSessions:
    def __init__(self, sessions: SignIns) -> None:
        self._sessions = sessions

    async def __call__(self, commit: Commit) -> None:
        """React to the end of sessions; may be done again. Raises: Unavailable."""
        for event in commit.events:
            if isinstance(event, Account.Erased):
                await self._sessions.end_all(account(event.originator_id))
            elif isinstance(event, Account.ENDS_SESSIONS):
                await self._sessions.end_all(account(event.originator_id), event.timestamp.isoformat())
