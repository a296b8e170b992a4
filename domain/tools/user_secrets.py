"""The secrets of an end user for toolsets whose servers know each user; the id is the person's.

They are sealed with the key of the person, so that they are erased together. A secret is for the place that its toolset
had when it was given: it goes to no other one.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate, Rejection


class UserSecret(TypedDict):
    """A secret of one person for one toolset."""

    sealed: str
    place: str


ToolsetName = Annotated[str, "Toolset."]


class UserSecrets(Aggregate):
    TOPIC = "user_secret"
    secrets: dict[str, UserSecret] = field(default_factory=dict, init=False)
    """By toolset."""

    class Event(aggregate.Event):
        pass

    class Begun(Event, aggregate.Created):
        """The first secret of this person is about to be set."""

        TOPIC = "user_secret.begun.v1"

    class Set(Event):
        """The person has a secret for a toolset, in place of an earlier one."""

        TOPIC = "user_secret.set.v1"
        toolset: ToolsetName
        sealed: Annotated[str, "Secret, encrypted with the key of the person, in base64."]
        place: Annotated[str, "SHA-256 of the place of the toolset, which alone gets the secret."]

        def apply(self, secrets: UserSecrets) -> None:
            secrets.secrets[self.toolset] = UserSecret(sealed=self.sealed, place=self.place)

    class Removed(Event):
        """The person has no secret for the toolset any more."""

        TOPIC = "user_secret.removed.v1"
        toolset: ToolsetName

        def apply(self, secrets: UserSecrets) -> None:
            del secrets.secrets[self.toolset]

    def set(self, at: datetime, *, toolset: str, sealed: str, place: str) -> None:
        if self.secrets.get(toolset) != UserSecret(sealed=sealed, place=place):
            self.record(self.Set, at, toolset=toolset, sealed=sealed, place=place)

    def remove(self, at: datetime, *, toolset: str) -> None:
        """Raises: Rejection `not_found`."""
        if toolset not in self.secrets:
            raise Rejection("not_found", f"The user has no secret for the toolset {toolset}.", "toolset")
        self.record(self.Removed, at, toolset=toolset)
