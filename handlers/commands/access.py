"""Commands of end users and bus logins."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from domain.access.bus_login import BusLogin
from domain.access.end_user import EndUser
from domain.aggregate import Rejection
from handlers.commands.fields import Command, Handle, Name
from handlers.commands.preparation import MakeOrChange, Preparation


class EraseEndUser(Command):
    """Destroy the key of a user's words; the next user of the name is another person."""

    user: Name = Field(description="User to erase, by the name in `message.send`")


class OpenBusLogin(Command):
    """Open a login for the tenant's services on the bus; the same name again issues another password."""

    name: Handle = Field(description="Name of the login")


class CloseBusLogin(Command):
    """Close a login: its connections are ended, and its password is no longer accepted."""

    bus_login: Handle = Field(description="Name of the login")


async def open_login(command: OpenBusLogin, given: Preparation) -> MakeOrChange[BusLogin]:
    if command.name == given.tenant:
        raise Rejection("invalid", "The tenant's name is the login of the server's configuration.", "name")

    def decide(login: BusLogin | None, id: str, at: datetime) -> BusLogin:
        if login is None:
            return BusLogin.begin(BusLogin.Opened, id, at, issue=given.id)
        login.issue_again(at, issue=given.id)
        return login

    return decide


async def erase(command: EraseEndUser, given: Preparation) -> MakeOrChange[EndUser]:
    """Destroy the key before the event is recorded: no reader of the event can still read the words."""
    person, known = await given.ports.people.last_person(given.tenant, command.user)
    await given.ports.people.erase(given.tenant, person)
    return lambda user, id, at: user or EndUser.begin(EndUser.Erased, id, at, known=known)
