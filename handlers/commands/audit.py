"""Commands of doors, for the audit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from domain.access.actor import ACTOR, account_of
from domain.access.door import BROWSER, Door
from domain.aggregate import Created
from handlers.commands.fields import Command
from handlers.commands.preparation import Make, Preparation


def _actor(value: str) -> str:
    if not ACTOR.fullmatch(value):
        raise ValueError("Must be an actor: a_<account>, k_<key>, s_<service> or anon")
    return value


CredentialField = Annotated[Literal["password", "token", "link", "key"], Field(description="Credential")]
AddressField = Annotated[str, Field(max_length=64, description="Address of the client; empty for several")]
BrowserField = Annotated[str, Field(max_length=BROWSER, description="Browser or program, as it names itself")]


class ReportSignIn(Command):
    """Report that a person signed in."""

    account: Annotated[str, Field(max_length=255)] | None = Field(None, description="Account; null: none is known")
    credential: CredentialField
    address: AddressField
    browser: BrowserField


class ReportRefusals(Command):
    """Report credentials that were refused for an address since the last report."""

    credential: CredentialField
    address: AddressField
    count: Annotated[int, Field(ge=1, description="Number of refusals")]

    @property
    def account(self) -> None:
        """No account: it is not known who came."""


class ReportUse(Command):
    """Report that an actor came from an address for the first time; the id is the origin of its commands."""

    actor: Annotated[str, AfterValidator(_actor), Field(description="Actor")]
    address: AddressField
    browser: BrowserField

    @property
    def account(self) -> str | None:
        return account_of(self.actor) or None


class Reading(Command):
    """Read what is recorded."""

    @property
    def account(self) -> None:
        """No account: its person is in the house, and what is read is in a tenant."""


class OpenTrace(Reading):
    """Open a trace, to read it."""

    trace: Annotated[str, Field(min_length=1, max_length=255, description="Trace")]


class SearchTraces(Reading):
    """Search, list or query what is recorded, to read it."""

    search: Annotated[str, Field(min_length=1, max_length=100_000, description="Path of the page, and its query")]


def reported(event: Callable[..., Created]) -> Callable[[Command, Preparation], Awaitable[Make[Door]]]:
    """The preparation of a command whose fields are those of the event."""

    async def prepare(sent: Command, given: Preparation) -> Make[Door]:
        return lambda id, at: Door.begin(event, id, at, **sent.model_dump())

    return prepare
