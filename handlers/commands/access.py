"""Commands of end users, logins and limits."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from domain.access.bus_login import BusLogin
from domain.access.door import MONTH
from domain.access.end_user import EndUser
from domain.access.limits import OPERATOR, TENANT, Counted, Limits, Period, Quantity, Scope
from domain.access.sql_login import SqlLogin, role_of
from domain.access.tenant import HOUSE
from domain.aggregate import Rejection
from domain.chat.app import App
from handlers.commands.fields import Command, Handle, Id, Name, Ref, is_uuid
from handlers.commands.preparation import Make, MakeOrChange, Preparation, not_found


class EraseEndUser(Command):
    """Destroy the key of a user's words; the next user of the name is another person."""

    user: Name = Field(description="User to erase, by the name in `message.send`")


class OpenBusLogin(Command):
    """Open a login for the tenant's services on the bus; the same name again issues another password."""

    name: Handle = Field(description="Name of the login")


class CloseBusLogin(Command):
    """Close a login: its connections are ended, and its password is no longer accepted."""

    bus_login: Handle = Field(description="Name of the login")


_BASE64 = "[A-Za-z0-9+/]"
VERIFIER = rf"^SCRAM-SHA-256\$\d{{4,6}}:{_BASE64}{{22}}==\${_BASE64}{{43}}=:{_BASE64}{{43}}=$"
"""PostgreSQL takes what does not have this form for a password in clear."""


class CreateSqlLogin(Command):
    """Create a login for PostgreSQL that reads the tenant's rows."""

    name: Handle = Field(description="Name, for people")
    verifier: Annotated[str, Field(pattern=VERIFIER, json_schema_extra={"writeOnly": True})] = Field(
        description="SCRAM-SHA-256 verifier of the password, as PostgreSQL has it, with a salt of 16 bytes. Only its "
        "encrypted form is kept"
    )


class RevokeSqlLogin(Command):
    """Revoke a login for PostgreSQL: its sessions are ended."""

    sql_login: Annotated[Id, Ref(SqlLogin), Field(description="SQL login")]


class LimitFields(Command):
    """The quantity that a limit counts, and its subject."""

    side: ClassVar[str]
    """The aggregate that has the limit."""

    quantity: Quantity = Field(description="Quantity that is counted; `bytes` are those of uploads")
    period: Period = Field(description="Period in UTC; `waiting`: those that have not ended")
    scope: Scope = Field("tenant", description="Scope of the count")
    subject: Annotated[str, Field(max_length=255)] = Field(
        "", description="Id of the app, name of the user, or key; empty for each of them, and for the tenant"
    )

    @property
    def counted(self) -> Counted:
        return Counted(self.quantity, self.period, self.scope)

    @model_validator(mode="after")
    def _can_be_counted(self) -> LimitFields:
        if fault := self.counted.fault:
            raise ValueError(fault)
        if self.scope == "tenant" and self.subject:
            raise ValueError("The subject must be empty for the tenant")
        if self.scope == "app" and self.subject and not is_uuid(self.subject):
            raise ValueError("The subject must be the id of an app")
        return self

    async def subject_id(self, given: Preparation) -> str:
        """The subject as it is counted: a user is the person of the name now."""
        if self.scope == "user" and self.subject:
            person, _ = await given.ports.people.last_person(given.tenant, self.subject)
            return person
        return self.subject


class SetLimit(LimitFields):
    """Set or change a limit of the tenant's own; where the operator set one, too, the smaller one holds."""

    side = TENANT
    most: Annotated[int, Field(ge=0, le=10**15)] = Field(description="Maximum; 0 refuses all")


class ImposeLimit(SetLimit):
    """Set or change the operator's limit for a tenant, in place of the default one."""

    side = OPERATOR


class RemoveLimit(LimitFields):
    """Remove a limit of the tenant's own."""

    side = TENANT


class LiftLimit(RemoveLimit):
    """Remove the operator's limit for a tenant; a default one holds again."""

    side = OPERATOR


async def set_limit(command: SetLimit, given: Preparation) -> MakeOrChange[Limits]:
    subject = await command.subject_id(given)
    if command.scope == "app" and subject and not await given.get(App, subject):
        raise not_found(App, subject, "subject")

    def decide(limits: Limits | None, id: str, at: datetime) -> Limits:
        limits = limits or Limits.begin(Limits.Begun, id, at)
        limits.limit(at, command.counted, subject, most=command.most)
        return limits

    return decide


async def remove_limit(command: RemoveLimit, given: Preparation) -> MakeOrChange[Limits]:
    subject = await command.subject_id(given)

    def decide(limits: Limits | None, id: str, at: datetime) -> Limits:
        if limits is None:
            raise Rejection("not_found", "No limit is set.")
        limits.remove(at, command.counted, subject)
        return limits

    return decide


async def open_login(command: OpenBusLogin, given: Preparation) -> MakeOrChange[BusLogin]:
    if command.name == given.tenant:
        raise Rejection("invalid", "The tenant's name is the login of the server's configuration.", "name")

    def decide(login: BusLogin | None, id: str, at: datetime) -> BusLogin:
        if login is None:
            return BusLogin.begin(BusLogin.Opened, id, at, issue=given.id)
        login.issue_again(at, issue=given.id)
        return login

    return decide


async def create_sql_login(command: CreateSqlLogin, given: Preparation) -> Make[SqlLogin]:
    role, sealed = role_of(given.tenant, given.id), given.ports.vault.seal(given.tenant, command.verifier)
    return lambda id, at: SqlLogin.begin(SqlLogin.Created, id, at, name=command.name, role=role, sealed_verifier=sealed)


async def erase(command: EraseEndUser, given: Preparation) -> MakeOrChange[EndUser]:
    """Destroy the key before the event is recorded: no reader of the event can still read the words."""
    if given.tenant == HOUSE and not MONTH.fullmatch(command.user):
        raise Rejection(
            "invalid", "In the house, only months of doors are erased; accounts are erased as such.", "user"
        )
    person, known = await given.ports.people.last_person(given.tenant, command.user)
    await given.ports.people.erase(given.tenant, person)
    return lambda user, id, at: user or EndUser.begin(EndUser.Erased, id, at, known=known)
