"""A budget: what calls of models may cost in a calendar month, for a tenant, or for one app, model or user of it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from domain import aggregate
from domain.aggregate import Aggregate


class Budget(Aggregate):
    TOPIC = "budget"
    scope: str
    subject: str
    amount_usd: float

    class Event(aggregate.Event):
        pass

    class Set(Event, aggregate.Created):
        """So much may the calls of a month cost that are for `subject` (an app's id, the name of a model or a user).

        It is empty when the scope is the whole tenant.
        """

        TOPIC = "budget.set.v1"
        scope: str
        subject: str
        amount_usd: float

    class Changed(Event):
        """It is another amount, or for something else; a removed budget is back."""

        TOPIC = "budget.changed.v1"
        scope: str
        subject: str
        amount_usd: float

        def apply(self, budget: Budget) -> None:
            budget.deleted = False
            budget.scope = self.scope
            budget.subject = self.subject
            budget.amount_usd = self.amount_usd

    class Removed(Event):
        """There is no such budget any more."""

        TOPIC = "budget.removed.v1"

        def apply(self, budget: Budget) -> None:
            budget.deleted = True

    @classmethod
    def set(cls, id: str, at: datetime, *, scope: str, subject: str, amount_usd: float) -> Self:
        return cls._create(cls.Set, id=id, timestamp=at, scope=scope, subject=subject, amount_usd=amount_usd)

    def change(self, at: datetime, *, scope: str, subject: str, amount_usd: float) -> None:
        if self.deleted or (self.scope, self.subject, self.amount_usd) != (scope, subject, amount_usd):
            self.record(self.Changed, at, scope=scope, subject=subject, amount_usd=amount_usd)

    def remove(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Removed, at)
