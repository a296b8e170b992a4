"""Commands of quotas, and of budgets, which are soft quotas of money in a month."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from domain.chat.app import App
from domain.models.budget import Budget
from domain.models.quota import (
    LENGTHS,
    LONGEST,
    OPERATOR,
    TENANT,
    UTC_ZONE,
    Definition,
    Period,
    Quota,
    Scope,
    Unit,
    time_zones,
)
from handlers.commands.fields import Command, Handle, is_uuid
from handlers.commands.preparation import MakeOrChange, Preparation, not_found

Subject = Annotated[str, Field(max_length=255)]


class SetQuota(Command):
    """Set or change a quota of the tenant's own. Calls beyond a hard one are refused, a soft one is reported."""

    side: ClassVar[str] = TENANT
    """The aggregate that has the quota."""

    name: Handle = Field(description="Name of the quota; the same name again changes it")
    scope: Scope = Field("tenant", description="Scope of the count")
    subject: Subject = Field(
        "",
        description="Id of the app, name of the user, key, provider or model; empty for each of them, and the tenant",
    )
    unit: Unit = Field(description="Unit that is counted; `money` is in US dollars")
    period: Period = Field(description="Window of the count, or the unit of a rolling one")
    time_zone: str = Field(
        UTC_ZONE, max_length=64, description="IANA name of the zone in which windows begin, such as `Europe/Berlin`"
    )
    rolling: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0,
        description="Number of minutes, hours or days that a window covers at any time: 24 with the period `hour` for "
        "the last 24 hours; 0 for windows of the calendar",
    )
    limit: Annotated[float, Field(ge=0, le=1e15)] = Field(
        description="Limit in a window; 0 of a hard quota refuses all"
    )
    hard: bool = Field(True, description="Refuse calls beyond the limit; false only reports")

    @model_validator(mode="after")
    def _can_be_counted(self) -> SetQuota:
        if self.unit == "money" and self.limit > 1e9:
            raise ValueError("The limit must not exceed 1,000,000,000 US dollars")
        if self.unit != "money" and self.limit != int(self.limit):
            raise ValueError(f"The limit must be a whole number of {self.unit}")
        if not (self.hard or self.limit):
            raise ValueError("The limit of a soft quota must be more than 0")
        if self.scope == "tenant" and self.subject:
            raise ValueError("The subject must be empty for the tenant")
        if self.scope == "app" and self.subject and not is_uuid(self.subject):
            raise ValueError("The subject must be the id of an app")
        self._must_have_an_end()
        return self

    def _must_have_an_end(self) -> None:
        """Raises: ValueError."""
        if self.time_zone not in time_zones():
            raise ValueError("Unknown time_zone; use an IANA name such as Europe/Berlin")
        if self.rolling and self.period not in LENGTHS:
            raise ValueError("The period of a rolling window must be minute, hour or day")
        if self.rolling and self.rolling * LENGTHS[self.period] > LONGEST:
            raise ValueError(f"A rolling window covers at most {LONGEST.days} days")
        if self.rolling and self.time_zone != UTC_ZONE:
            raise ValueError("The time_zone must be left out for a window that rolls")


class ImposeQuota(SetQuota):
    """Set or change a quota of a tenant, as its operator; the tenant's own hold next to it."""

    side: ClassVar[str] = OPERATOR


class RemoveQuota(Command):
    """Remove a quota of the tenant's own."""

    side: ClassVar[str] = TENANT

    quota: Handle = Field(description="Quota, by its name")


class LiftQuota(RemoveQuota):
    """Remove a quota that the operator set for a tenant."""

    side: ClassVar[str] = OPERATOR


class SetBudget(Command):
    """Set or change a limit for the cost of model calls in a calendar month: a soft quota. It is reported, not
    enforced."""

    side: ClassVar[str] = TENANT

    name: Handle = Field(description="Name of the budget; the same name again changes it")
    scope: Literal["tenant", "app", "model", "user"] = Field(description="Scope of the budget")
    subject: Subject = Field("", description="Id of the app, or name of the model or user; empty for the tenant")
    amount_usd: Annotated[float, Field(gt=0, le=1e9)] = Field(description="US dollars in a calendar month")

    @property
    def budget(self) -> str:
        """The name of the budget in the outcome."""
        return self.name

    @model_validator(mode="after")
    def _of_something(self) -> SetBudget:
        if (self.scope == "tenant") != (not self.subject.strip()):
            raise ValueError("The subject must name an app, model or user, and be empty for the tenant")
        if self.scope == "app" and not is_uuid(self.subject):
            raise ValueError("The subject must be the id of an app")
        return self


class RemoveBudget(Command):
    """Remove a budget."""

    side: ClassVar[str] = TENANT

    budget: Handle = Field(description="Budget, by its name")


async def _subject(given: Preparation, scope: str, subject: str) -> str:
    """The subject as it is counted: a user is the person of the name now. Raises: Rejection."""
    if scope == "user" and subject:
        person, _ = await given.ports.people.last_person(given.tenant, subject)
        return person
    if scope == "app" and subject and not await given.get(App, subject):
        raise not_found(App, subject, "subject")
    return subject


async def set_quota(command: SetQuota, given: Preparation) -> MakeOrChange[Quota]:
    definition = Definition(
        scope=command.scope,
        subject=await _subject(given, command.scope, command.subject),
        unit=command.unit,
        period=command.period,
        limit=command.limit,
        hard=command.hard,
        time_zone=command.time_zone,
        rolling=command.rolling,
    )

    def decide(quota: Quota | None, id: str, at: datetime) -> Quota:
        quota = quota or Quota.begin(Quota.Begun, id, at)
        quota.set(at, command.name, definition)
        return quota

    return decide


async def remove_quota(command: RemoveQuota, given: Preparation) -> MakeOrChange[Quota]:
    def decide(quota: Quota | None, id: str, at: datetime) -> Quota:
        quota = quota or Quota.begin(Quota.Begun, id, at)
        quota.remove(at, command.quota)
        return quota

    return decide


async def set_budget(command: SetBudget, given: Preparation) -> MakeOrChange[Quota]:
    definition = Definition(
        scope=command.scope,
        subject=await _subject(given, command.scope, command.subject),
        unit="money",
        period="month",
        limit=command.amount_usd,
        hard=False,
        time_zone=UTC_ZONE,
        rolling=0,
    )

    def decide(quota: Quota | None, id: str, at: datetime) -> Quota:
        quota = quota or Quota.begin(Quota.Begun, id, at)
        quota.set_budget(at, command.name, definition)
        return quota

    return decide


async def remove_budget(command: RemoveBudget, given: Preparation) -> MakeOrChange[Quota]:
    budget = await given.get(Budget, command.budget)
    earlier = budget is not None and not budget.deleted

    def decide(quota: Quota | None, id: str, at: datetime) -> Quota:
        quota = quota or Quota.begin(Quota.Begun, id, at)
        quota.remove_budget(at, command.budget, earlier=earlier)
        return quota

    return decide
