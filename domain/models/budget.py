"""A budget: a limit for the cost of model calls in a calendar month, for a tenant or for one app, model or user.

Earlier versions recorded it. Now a budget is a soft quota, and these events are only read.
"""

from __future__ import annotations

from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate

Scope = Annotated[str, "`tenant`, `app`, `model` or `user`."]
Subject = Annotated[str, "Id of the app, or name of the model or user; empty for the tenant."]
Amount = Annotated[float, "US dollars in a calendar month."]


class Budget(Aggregate):
    TOPIC = "budget"
    scope: str
    subject: str
    amount_usd: float

    class Event(aggregate.Event):
        pass

    class Set(Event, aggregate.Created):
        """A budget was set."""

        TOPIC = "budget.set.v1"
        scope: Scope
        subject: Subject
        amount_usd: Amount

    class Changed(Event):
        """The amount or the subject changed, or a removed budget was set again."""

        TOPIC = "budget.changed.v1"
        scope: Scope
        subject: Subject
        amount_usd: Amount

        def apply(self, budget: Budget) -> None:
            budget.deleted = False
            budget.scope = self.scope
            budget.subject = self.subject
            budget.amount_usd = self.amount_usd

    class Removed(Event):
        """The budget was removed."""

        TOPIC = "budget.removed.v1"

        def apply(self, budget: Budget) -> None:
            budget.deleted = True
