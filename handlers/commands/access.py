"""Commands of end users."""

from __future__ import annotations

from pydantic import Field

from domain.access.end_user import EndUser
from handlers.commands.fields import Command, Name
from handlers.commands.preparation import MakeOrChange, Preparation


class EraseEndUser(Command):
    """Destroy the key of a user's words; the next user of the name is another person."""

    user: Name = Field(description="User to erase, by the name in `message.send`")


async def erase(command: EraseEndUser, given: Preparation) -> MakeOrChange[EndUser]:
    """Destroy the key before the event is recorded: no reader of the event can still read the words."""
    person, known = await given.ports.people.last_person(given.tenant, command.user)
    await given.ports.people.erase(given.tenant, person)
    return lambda user, id, at: user or EndUser.begin(EndUser.Erased, id, at, known=known)
