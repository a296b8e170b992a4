"""An account: a person who signs in, or a service. Accounts are in the house, since one may be in several tenants.

A person's account has the id of the person of its e-mail in the house: its words are sealed with that person's key, and
erasing destroys it.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, Literal

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

Kind = Literal["person", "service"]

Status = Literal["active", "disabled"]

PasswordHash = Annotated[str, "Argon2id hash of the password; empty for a service, and without a password."]


def address(text: str) -> str:
    """An e-mail address as accounts have it."""
    return text.strip().lower()


class Account(Aggregate):
    TOPIC = "account"
    kind: str
    password: str
    status: Status = field(default="active", init=False)
    signed_out_at: str = field(default="", init=False)
    """Sessions that began before this time (ISO 8601) have ended; empty for none."""

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """An account was created."""

        TOPIC = "account.created.v1"
        PERSONAL = frozenset({"name", "email", "password"})
        kind: Annotated[str, "`person` or `service`."]
        name: Annotated[str, "Name, for people."]
        email: Annotated[str, "E-mail address, in lower case; empty for a service."]
        password: PasswordHash

    class Renamed(Event):
        """The account was renamed."""

        TOPIC = "account.renamed.v1"
        PERSONAL = frozenset({"name"})
        name: Annotated[str, "Name, for people."]

    class PasswordChanged(Event):
        """The password was changed: every session of the account has ended."""

        TOPIC = "account.password_changed.v1"
        PERSONAL = frozenset({"password"})
        password: PasswordHash

        def apply(self, account: Account) -> None:
            account.password = self.password
            account.signed_out_at = self.timestamp.isoformat()

    class SignedOut(Event):
        """Every session of the account has ended."""

        TOPIC = "account.signed_out.v1"

        def apply(self, account: Account) -> None:
            account.signed_out_at = self.timestamp.isoformat()

    class Disabled(Event):
        """The account was disabled: its sessions and keys are refused."""

        TOPIC = "account.disabled.v1"

        def apply(self, account: Account) -> None:
            account.status = "disabled"
            account.signed_out_at = self.timestamp.isoformat()

    class Enabled(Event):
        """A disabled account was enabled again."""

        TOPIC = "account.enabled.v1"

        def apply(self, account: Account) -> None:
            account.status = "active"

    class Erased(Event):
        """The person's key was destroyed: name, e-mail and password can no longer be read."""

        TOPIC = "account.erased.v1"

        def apply(self, account: Account) -> None:
            account.deleted = True
            account.password = ""

    ENDS_SESSIONS = (PasswordChanged, SignedOut, Disabled, Erased)
    """The events with which every session ends that had begun before."""

    @property
    def is_active(self) -> bool:
        """True unless it was disabled or erased."""
        return self.status == "active" and not self.deleted

    def is_signed_in(self, since: str) -> bool:
        """True for a session that began when `since` was the last sign-out, if none has followed.

        A later `since` counts as well: this fold of the account may lack the last sign-out so far.
        """
        return self.is_active and self.signed_out_at <= since

    def rename(self, at: datetime, *, name: str) -> None:
        self.record(self.Renamed, at, name=name)

    def change_password(self, at: datetime, *, password: str) -> None:
        if self.kind == "service":
            raise Rejection("no_password", "A service has no password: it signs in with an API key.", "account")
        if password != self.password:
            self.record(self.PasswordChanged, at, password=password)

    def sign_out(self, at: datetime) -> None:
        self.record(self.SignedOut, at)

    def disable(self, at: datetime) -> None:
        if self.status == "active":
            self.record(self.Disabled, at)

    def enable(self, at: datetime) -> None:
        if self.status == "disabled":
            self.record(self.Enabled, at)

    def erase(self, at: datetime) -> None:
        self.record(self.Erased, at)
