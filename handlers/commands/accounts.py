"""Commands of accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from domain.access.account import Account, address
from domain.access.tenant import HOUSE
from domain.aggregate import Rejection
from handlers.commands.fields import Command, Id, Name
from handlers.commands.preparation import Change, Make, MakeOrChange, Preparation


def _address(text: str) -> str:
    found = address(text)
    name, at, host = found.rpartition("@")
    if not (name and at and "." in host.strip(".")) or any(sign.isspace() for sign in found):
        raise ValueError("Must be an e-mail address")
    return found


EMail = Annotated[str, Field(max_length=254, description="E-mail address; letters are put in lower case")]
PasswordHash = Annotated[
    str,
    Field(
        max_length=255,
        pattern=r"^\$argon2id\$v=19\$m=\d{4,8},t=\d{1,3},p=\d{1,3}\$[A-Za-z0-9+/]{16,128}\$[A-Za-z0-9+/]{16,128}$",
        description="Argon2id hash of the password, made by the door; the password itself is in no command",
    ),
]
AccountId = Annotated[Id, Field(description="Account")]


class CreateAccount(Command):
    """Create the account of a person, who signs in with an e-mail address and a password."""

    email: Annotated[EMail, AfterValidator(_address)]
    name: Name
    password: PasswordHash | None = Field(None, description="Argon2id hash of the password; null: none yet")


class CreateService(Command):
    """Create the account of a service. It has no password: it signs in with API keys."""

    name: Name


class RenameAccount(Command):
    """Rename an account."""

    account: AccountId
    name: Name


class ChangePassword(Command):
    """Change the password of an account, and end its sessions."""

    account: AccountId
    password: PasswordHash


class SignOutEverywhere(Command):
    """End every session of an account."""

    account: AccountId


class DisableAccount(Command):
    """Disable an account: its sessions end, its keys are refused."""

    account: AccountId


class EnableAccount(Command):
    """Enable a disabled account again."""

    account: AccountId


class EraseAccount(Command):
    """Erase an account: destroy the key of its words. The next account of the address is another one."""

    account: AccountId


async def create(command: CreateAccount, given: Preparation) -> MakeOrChange[Account]:
    def decide(account: Account | None, id: str, at: datetime) -> Account:
        if account is not None:
            raise Rejection("exists", "There is an account with this address already.", "email")
        return Account.begin(
            Account.Created,
            id,
            at,
            kind="person",
            name=command.name,
            email=command.email,
            password=command.password or "",
        )

    return decide


async def create_service(command: CreateService, given: Preparation) -> Make[Account]:
    return lambda id, at: Account.begin(
        Account.Created, id, at, kind="service", name=command.name, email="", password=""
    )


async def erase(command: EraseAccount, given: Preparation) -> Change[Account]:
    """Destroy the key before the event is recorded: no reader of the event can still read the words."""
    if owned := await given.ports.owned(command.account):
        raise Rejection("owner", f"Transfer what this account owns first: {', '.join(owned)}.", "account")
    account = await given.get(Account, command.account)
    if account and not account.deleted and account.kind == "person":
        await given.ports.people.erase(HOUSE, command.account)
    return lambda account, at: account.erase(at)
