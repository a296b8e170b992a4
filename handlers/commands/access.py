"""Commands of end users."""

from __future__ import annotations

from handlers.commands.fields import Command, Fields, Name, Preparation


class EraseEndUser(Command):
    """Throw away the key that the words of a user are kept under; who comes back under the name is somebody else."""

    user: Name


async def throw_away(command: EraseEndUser, preparation: Preparation) -> Fields:
    """Erase the key before that is on record: what comes after the record in the log can surely not be read."""
    people = preparation.people
    assert people is not None
    person, known = await people.last_person(preparation.tenant, command.user)
    await people.erase(preparation.tenant, person)
    return {"known": known}
