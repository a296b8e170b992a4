"""The workflow of an app: a draft that is changed, and numbered versions that run.

Graphs are blobs, named by their digests. The id of a workflow is that of its app.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, TypedDict, Unpack

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

MOST_NAME, MOST_COMMENT = 20, 100
"""Maximum characters of the name of a version, and of a comment on it."""


class Content(TypedDict):
    """A draft, or a version of it."""

    document: str
    graph: str
    file: str | None
    secrets: dict[str, str]


class Version(Content):
    name: str
    comment: str


Document = Annotated[str, "Blob with the document as JSON, as it was saved: an app file without secrets."]
GraphDigest = Annotated[str, "Blob with the normalised graph, as JSON: what runs."]
OriginalFile = Annotated[str | None, "Blob with the file that it was imported from, without secrets; null for none."]
Secrets = Annotated[dict[str, str], "Secret variables of the environment by name, encrypted by the tenant's vault."]
Number = Annotated[int, "Number of the version, from 1."]


class Workflow(Aggregate):
    """A draft, and all versions that were published, by number."""

    TOPIC = "workflow"
    draft: Content | None = field(default=None, init=False)
    versions: dict[str, Version] = field(default_factory=dict, init=False)

    class Event(aggregate.Event):
        pass

    class Begun(Event, aggregate.Created):
        """The first draft is about to be saved."""

        TOPIC = "workflow.begun.v1"

    class DraftSaved(Event):
        """The draft is this from now on."""

        TOPIC = "workflow.draft_saved.v1"
        document: Document
        graph: GraphDigest
        file: OriginalFile
        secrets: Secrets

        def apply(self, workflow: Workflow) -> None:
            workflow.draft = content(self)

    class Published(Event):
        """The draft was published: runs begin with this version from now on."""

        TOPIC = "workflow.published.v1"
        number: Number
        document: Document
        graph: GraphDigest
        file: OriginalFile
        secrets: Secrets
        name: Annotated[str, "Name of the version, for people; empty for none."]
        comment: Annotated[str, "Comment on the version, for people; empty for none."]

        def apply(self, workflow: Workflow) -> None:
            workflow.versions[str(self.number)] = Version(**content(self), name=self.name, comment=self.comment)

    class Restored(Event):
        """The draft is a copy of a version from now on."""

        TOPIC = "workflow.restored.v1"
        number: Number
        document: Document
        graph: GraphDigest
        file: OriginalFile
        secrets: Secrets

        def apply(self, workflow: Workflow) -> None:
            workflow.draft = content(self)

    @property
    def newest(self) -> Version | None:
        """The version that runs, None before the first."""
        return self.versions.get(str(len(self.versions)))

    @property
    def sealed(self) -> set[tuple[str, str]]:
        """The names and values of the secret variables of the draft and of the version that runs."""
        return {pair for each in (self.draft, self.newest) if each for pair in each["secrets"].items()}

    def save(self, at: datetime, *, replaces: str | None, **new: Unpack[Content]) -> None:
        """Raises: Rejection `stale`."""
        if new == self.draft:
            return
        now = self.draft["document"] if self.draft else None
        if replaces != now:
            raise _stale(now, "replaces")
        self.record(self.DraftSaved, at, **new)

    def publish(self, at: datetime, *, graph: str, name: str, comment: str) -> None:
        """Publish the draft, which was checked as the graph `graph`. Raises: Rejection `not_found`, `stale`."""
        if self.draft is None:
            raise Rejection("not_found", "There is no draft; send workflow.save first.", "workflow")
        if self.draft["graph"] != graph:
            raise _stale(self.draft["document"], "workflow")
        version = Version(**self.draft, name=name, comment=comment)
        if version != self.newest:
            self.record(self.Published, at, number=len(self.versions) + 1, **version)

    def restore(self, at: datetime, *, number: int) -> None:
        """Raises: Rejection `not_found`."""
        version = self.versions.get(str(number))
        if version is None:
            raise Rejection("not_found", f"The workflow has {len(self.versions)} versions.", "number")
        copy = Content(**{name: version[name] for name in Content.__annotations__})  # type: ignore[typeddict-item, literal-required]
        if copy != self.draft:
            self.record(self.Restored, at, number=number, **copy)


def content(event: Workflow.DraftSaved | Workflow.Published | Workflow.Restored) -> Content:
    return Content(document=event.document, graph=event.graph, file=event.file, secrets=event.secrets)


def _stale(now: str | None, field: str) -> Rejection:
    rule = f"The draft is {now} by now: read it, and send the change of it." if now else "There is no draft yet."
    return Rejection("stale", rule, field, {"document": now or ""})
