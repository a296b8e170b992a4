"""A bus login: the login of a tenant's services on the bus, by its name."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate

Issue = Annotated[str, "Id of the command that issued the password, which follows from it and a key of the operator."]


class BusLogin(Aggregate):
    """The password is never recorded: it follows from `issue` and a key that only the operator has."""

    TOPIC = "bus_login"
    issue: str

    class Event(aggregate.Event):
        pass

    class Opened(Event, aggregate.Created):
        """A login was opened."""

        TOPIC = "bus_login.opened.v1"
        issue: Issue

    class Issued(Event):
        """A new password was issued, or a closed login was opened again."""

        TOPIC = "bus_login.issued.v1"
        issue: Issue

        def apply(self, login: BusLogin) -> None:
            login.deleted = False
            login.issue = self.issue

    class Closed(Event):
        """The login was closed."""

        TOPIC = "bus_login.closed.v1"

        def apply(self, login: BusLogin) -> None:
            login.deleted = True

    def issue_again(self, at: datetime, *, issue: str) -> None:
        if self.deleted or issue != self.issue:
            self.record(self.Issued, at, issue=issue)

    def close(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Closed, at)
