"""The limits of a tenant: how much may wait, or come in a minute or a day, for the tenant, an app, a user or a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

Quantity = Literal["commands", "messages", "documents", "replays", "bytes", "tokens"]
Period = Literal["minute", "day", "waiting"]
Scope = Literal["tenant", "app", "user", "key"]

OPERATOR, TENANT = "operator", "tenant"
"""The ids of the two aggregates of a tenant: the limits that the operator set, and the tenant's own."""

MOST = 1000
"""Maximum number of limits of one side."""

SECONDS: Mapping[str, int] = {"minute": 60, "day": 86_400}
"""Length of the periods, which begin at full minutes and days in UTC."""

_EVERY = ("tenant", "app", "user", "key")
_OF_CHAT, _OF_FILES = (*SECONDS,), ("tenant", "key")
_RULES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "commands": (_OF_CHAT, _EVERY),
    "messages": ((*SECONDS, "waiting"), _EVERY),
    "documents": ((*SECONDS, "waiting"), _OF_FILES),
    "replays": ((*SECONDS, "waiting"), _OF_FILES),
    "bytes": (_OF_CHAT, _OF_FILES),
    "tokens": (_OF_CHAT, _EVERY),
}
"""The periods and the scopes of each quantity."""


class Counted(NamedTuple):
    """A quantity that is counted in a period, within a scope."""

    quantity: str
    period: str
    scope: str = "tenant"

    def __str__(self) -> str:
        """As settings and outcomes have it: `messages/minute/user`."""
        return "/".join(self)

    @property
    def fault(self) -> str | None:
        """The rule that it breaks, None for what can be limited."""
        if self.quantity not in _RULES:
            return f"The quantity must be one of {', '.join(_RULES)}"
        periods, scopes = _RULES[self.quantity]
        if self.period not in periods:
            return f"The period of {self.quantity} must be one of {', '.join(periods)}"
        if self.period == "waiting":
            scopes = ("tenant",)
        if self.scope not in scopes:
            return f"The scope of {self.quantity} and this period must be one of {', '.join(scopes)}"
        return None


Side = Mapping[str, int]
"""Limits by their names: `messages/minute/user` for each user, `messages/minute/user/<id>` for one."""


def name(counted: Counted, subject: str = "") -> str:
    """The name of the limit for a subject, or for each subject."""
    return f"{counted}/{subject}" if subject else str(counted)


def counted(name: str) -> tuple[Counted, str]:
    """The quantity, period and scope of the limit of this name, and its subject; empty for each."""
    quantity, period, scope, *subject = name.split("/", 3)
    return Counted(quantity, period, scope), "".join(subject)


def least(sides: tuple[Side, ...], counted: Counted, subject: str) -> int | None:
    """The limit of a subject: of each side that for this one, or else that for each; of both sides the smaller one."""
    one, each = name(counted, subject), name(counted)
    return min((most for side in sides if (most := side.get(one, side.get(each))) is not None), default=None)


def parsed(text: str) -> dict[str, int]:
    """Limits as in the settings: `messages/minute/user=60, tokens/day=1000000`. Raises: ValueError."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        left, _, right = part.partition("=")
        parts = left.strip().split("/")
        if not (2 <= len(parts) <= 3 and right.strip().isascii() and right.strip().isdigit()):
            raise ValueError(f"{part!r} is not like messages/minute/user=60")
        kind = Counted(*parts)
        if kind.fault:
            raise ValueError(f"{part!r}: {kind.fault}")
        found[str(kind)] = int(right)
    return found


QuantityField = Annotated[str, "`commands`, `messages`, `documents`, `replays`, `bytes` (of uploads) or `tokens`."]
PeriodField = Annotated[str, "`minute` or `day`, in UTC; `waiting`: those that have not ended."]
ScopeField = Annotated[str, "`tenant`, `app`, `user` or `key`."]
SubjectField = Annotated[str, "Id of the app, the user or the key; empty for each of them, and for the tenant."]


class Limits(Aggregate):
    TOPIC = "limits"
    most: dict[str, int] = field(default_factory=dict, init=False)
    """By name."""

    class Event(aggregate.Event):
        pass

    class Begun(Event, aggregate.Created):
        """The first limit of this side, the operator's or the tenant's, is about to be set."""

        TOPIC = "limits.begun.v1"

    class Set(Event):
        """A limit was set or changed."""

        TOPIC = "limits.set.v1"
        quantity: QuantityField
        period: PeriodField
        scope: ScopeField
        subject: SubjectField
        most: Annotated[int, "Maximum."]

        def apply(self, limits: Limits) -> None:
            limits.most[name(Counted(self.quantity, self.period, self.scope), self.subject)] = self.most

    class Removed(Event):
        """A limit was removed."""

        TOPIC = "limits.removed.v1"
        quantity: QuantityField
        period: PeriodField
        scope: ScopeField
        subject: SubjectField

        def apply(self, limits: Limits) -> None:
            del limits.most[name(Counted(self.quantity, self.period, self.scope), self.subject)]

    def limit(self, at: datetime, counted: Counted, subject: str, *, most: int) -> None:
        known = self.most.get(name(counted, subject))
        if known is None and len(self.most) >= MOST:
            raise Rejection("too_many", f"There are at most {MOST:,} limits; remove one first.")
        if known != most:
            self.record(self.Set, at, **counted._asdict(), subject=subject, most=most)

    def remove(self, at: datetime, counted: Counted, subject: str) -> None:
        if name(counted, subject) not in self.most:
            raise Rejection("not_found", f"There is no limit {name(counted, subject)}.")
        self.record(self.Removed, at, **counted._asdict(), subject=subject)
