"""The tags of a tenant for its apps, or for its knowledge bases.

Tags of one kind are one aggregate, so that their names are unique.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

MOST = 1000
"""Maximum number of tags of a kind."""

MOST_BOUND = 10_000
"""Maximum number of apps or knowledge bases with one tag."""


class Tag(TypedDict):
    name: str
    targets: list[str]


TagId = Annotated[str, "Tag."]
TagName = Annotated[str, "Name, for people; unique among the tags of the kind."]
Target = Annotated[str, "App or knowledge base, by the kind of tags."]


class Tags(Aggregate):
    """All tags of a kind, `app` or `knowledge`, which is the id."""

    TOPIC = "tags"
    tags: dict[str, Tag] = field(default_factory=dict, init=False)

    class Event(aggregate.Event):
        pass

    class Begun(Event, aggregate.Created):
        """The first tag of this kind is about to be created."""

        TOPIC = "tags.begun.v1"

    class Created(Event):
        """A tag was created."""

        TOPIC = "tag.created.v1"
        tag: TagId
        name: TagName

        def apply(self, tags: Tags) -> None:
            tags.tags[self.tag] = Tag(name=self.name, targets=[])

    class Renamed(Event):
        """A tag was renamed."""

        TOPIC = "tag.renamed.v1"
        tag: TagId
        name: TagName

        def apply(self, tags: Tags) -> None:
            tags.tags[self.tag]["name"] = self.name

    class Deleted(Event):
        """A tag was deleted; nothing has it any more."""

        TOPIC = "tag.deleted.v1"
        tag: TagId

        def apply(self, tags: Tags) -> None:
            del tags.tags[self.tag]

    class Bound(Event):
        """An app or a knowledge base was given a tag."""

        TOPIC = "tag.bound.v1"
        tag: TagId
        target: Target

        def apply(self, tags: Tags) -> None:
            tags.tags[self.tag]["targets"].append(self.target)

    class Unbound(Event):
        """A tag was taken from an app or a knowledge base."""

        TOPIC = "tag.unbound.v1"
        tag: TagId
        target: Target

        def apply(self, tags: Tags) -> None:
            tags.tags[self.tag]["targets"].remove(self.target)

    def create(self, at: datetime, *, tag: str, name: str) -> None:
        if tag in self.tags:
            return
        if len(self.tags) >= MOST:
            raise Rejection("too_many", f"There are at most {MOST:,} tags of a kind; delete one first.")
        self._must_be_free(name, tag)
        self.record(self.Created, at, tag=tag, name=name)

    def rename(self, at: datetime, *, tag: str, name: str) -> None:
        if self._known(tag)["name"] != name:
            self._must_be_free(name, tag)
            self.record(self.Renamed, at, tag=tag, name=name)

    def remove(self, at: datetime, *, tag: str) -> None:
        self._known(tag)
        self.record(self.Deleted, at, tag=tag)

    def bind(self, at: datetime, *, tag: str, target: str) -> None:
        targets = self._known(tag)["targets"]
        if target in targets:
            return
        if len(targets) >= MOST_BOUND:
            raise Rejection("too_many", f"At most {MOST_BOUND:,} apps or knowledge bases have one tag.", "tag")
        self.record(self.Bound, at, tag=tag, target=target)

    def unbind(self, at: datetime, *, tag: str, target: str) -> None:
        if target in self._known(tag)["targets"]:
            self.record(self.Unbound, at, tag=tag, target=target)

    def _known(self, tag: str) -> Tag:
        """Raises: Rejection `not_found`."""
        try:
            return self.tags[tag]
        except KeyError:
            raise Rejection("not_found", f"There is no tag {tag} of the kind {self.id}.", "tag") from None

    def _must_be_free(self, name: str, tag: str) -> None:
        """Raises: Rejection `exists` when another tag has the name, upper and lower case being equal."""
        for id, known in self.tags.items():
            if id != tag and known["name"].casefold() == name.casefold():
                raise Rejection("exists", f"The tag {id} of the kind {self.id} has this name.", "name")
