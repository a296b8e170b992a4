"""A route: models that apps use by one name, in groups; where a model cannot answer, the next one is called."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, TypedDict, Unpack, get_args

from domain import aggregate
from domain.aggregate import Aggregate

Strategy = Literal["weighted", "least_busy", "fastest", "cheapest"]

Reaction = Literal["next", "larger", "stop"]
"""To a call that failed: call the next model, the next one with a larger window, or none."""

REACTIONS: Mapping[str, Reaction] = {
    "rate_limited": "next",
    "overloaded": "next",
    "unreachable": "next",
    "timeout": "next",
    "server_error": "next",
    "broken_off": "next",
    "provider_unavailable": "next",
    "unauthorized": "next",
    "payment_required": "next",
    "not_found": "next",
    "unsupported": "next",
    "quota_exceeded": "next",
    "unpriced": "next",
    "context_length_exceeded": "larger",
    "truncated": "larger",
    "bad_request": "stop",
    "content_filter": "stop",
}
"""By the error code of the call. For other codes, as where the request cannot be recorded, none is called; nor after
`quota_exceeded` by a quota that holds for other models, too."""

STRATEGIES = get_args(Strategy)


class Member(TypedDict):
    """A model of a group."""

    provider: Annotated[str, "`builtin`, or the name of a registered provider."]
    model: Annotated[str, "Name of the model at its provider."]
    weight: Annotated[int, "Share of the calls that it gets, relative to the weights of the others of its group."]
    context_window: Annotated[int | None, "Maximum tokens of prompt and answer together; null: as far as is known."]


class Group(TypedDict):
    """Models that share the calls of a route."""

    strategy: Annotated[str, f"Choice of the model: {', '.join(f'`{name}`' for name in STRATEGIES)}."]
    members: Annotated[list[Member], "Models of the group."]


Groups = Annotated[list[Group], "Groups of models; a group is used where none before it can answer."]
Reactions = Annotated[dict[str, str], "By error code, other reactions than the usual ones: `next`, `larger` or `stop`."]
Restart = Annotated[bool, "True if an answer that has begun may begin again with another model."]
Wait = Annotated[int, "Time to wait for a model when all of them rest, in seconds."]


class RouteSettings(TypedDict):
    groups: list[Group]
    reactions: dict[str, str]
    restart: bool
    wait_s: int


class ModelRoute(Aggregate):
    TOPIC = "route"
    groups: list[Group]
    reactions: dict[str, str]
    restart: bool
    wait_s: int

    class Event(aggregate.Event):
        pass

    class Configured(Event, aggregate.Created):
        """A route was made."""

        TOPIC = "route.configured.v1"
        groups: Groups
        reactions: Reactions
        restart: Restart
        wait_s: Wait

    class Changed(Event):
        """The route was changed, or configured again after it was removed."""

        TOPIC = "route.changed.v1"
        groups: Groups
        reactions: Reactions
        restart: Restart
        wait_s: Wait

        def apply(self, route: ModelRoute) -> None:
            route.deleted = False
            route.groups = self.groups
            route.reactions = self.reactions
            route.restart = self.restart
            route.wait_s = self.wait_s

    class Removed(Event):
        """The route was removed: apps that use it cannot answer."""

        TOPIC = "route.removed.v1"

        def apply(self, route: ModelRoute) -> None:
            route.deleted = True

    @property
    def settings(self) -> RouteSettings:
        return RouteSettings(groups=self.groups, reactions=self.reactions, restart=self.restart, wait_s=self.wait_s)

    def reaction(self, code: str) -> str:
        """The reaction to a call that failed with this code."""
        return self.reactions.get(code, REACTIONS.get(code, "stop"))

    def change(self, at: datetime, **settings: Unpack[RouteSettings]) -> None:
        if self.deleted or self.settings != settings:
            self.record(self.Changed, at, **settings)

    def remove(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Removed, at)
