"""A toolset: tools that come from one place, known to a tenant by a name, with the credential that they need.

Its list of tools is read when it is registered or changed, and again on request. A call names the digest of the list,
so that tools which changed after they were allowed are seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, TypedDict, Unpack

from domain import aggregate
from domain.aggregate import Aggregate
from domain.tools.tool import Listed

Kind = Literal["openapi", "mcp", "app", "dataset", "sql", "plugin"]


class Secret(TypedDict):
    """A secret of a toolset, encrypted by the tenant's vault; the clear one is never recorded."""

    sealed: Annotated[str, "Secret, encrypted."]
    hint: Annotated[str, "Its last characters, to recognize it by; empty when unknown."]


def place(kind: str, settings: Mapping[str, Any]) -> str:
    """The SHA-256 of where requests of a toolset go, and where its secret is changed for a token."""
    places = [settings.get(each) for each in ("url", "server", "text", "digest", "name", "provider")]
    token_url = settings.get("auth", {}).get("token_url")
    return sha256(json.dumps([kind, *places, token_url]).encode()).hexdigest()


class ToolsetSettings(TypedDict):
    """Where the tools are from."""

    kind: str
    description: str
    settings: dict[str, Any]
    secret: Secret | None
    timeout_s: float


ToolsetKind = Annotated[str, "Kind: `openapi`, `mcp`, `app`, `dataset`, `sql` or `plugin`."]
Settings = Annotated[dict[str, Any], "Settings of its kind, see [tools](tools.md)."]
Sealed = Annotated[Secret | None, "Secret that its server asks for; null for none."]
Timeout = Annotated[float, "Time limit of a call, in seconds."]
About = Annotated[str, "Description, for people."]


class Toolset(Aggregate):
    TOPIC = "toolset"
    kind: str
    description: str
    settings: dict[str, Any]
    secret: Secret | None
    timeout_s: float
    digest: str | None = field(default=None, init=False)
    """The blob with the list of tools; None before the first."""
    refresh: str = field(default="", init=False)
    """The refresh that was requested last."""
    refreshing: bool = field(default=False, init=False)
    failed: bool = field(default=False, init=False)
    stalls: int = field(default=0, init=False)

    class Event(aggregate.Event):
        pass

    class Registered(Event, aggregate.Created):
        """A toolset was registered."""

        TOPIC = "toolset.registered.v1"
        kind: ToolsetKind
        description: About
        settings: Settings
        secret: Sealed
        timeout_s: Timeout

    class Changed(Event):
        """The toolset is in another place, or called otherwise; or a removed one was registered again."""

        TOPIC = "toolset.changed.v1"
        kind: ToolsetKind
        description: About
        settings: Settings
        secret: Sealed
        timeout_s: Timeout

        def apply(self, toolset: Toolset) -> None:
            toolset.deleted = False
            toolset.kind, toolset.description = self.kind, self.description
            toolset.settings, toolset.secret, toolset.timeout_s = self.settings, self.secret, self.timeout_s

    class RefreshRequested(Event):
        """The list of tools was requested, or requested again after its worker was lost."""

        TOPIC = "toolset.refresh_requested.v1"
        refresh: Annotated[str, "Id of the refresh: the command that asked for it."]

        def apply(self, toolset: Toolset) -> None:
            if toolset.refresh != self.refresh:
                toolset.stalls = 0
            toolset.refresh, toolset.refreshing, toolset.failed = self.refresh, True, False

    class Refreshed(Event):
        """The list of tools was read."""

        TOPIC = "toolset.refreshed.v1"
        refresh: Annotated[str, "Id of the refresh."]
        digest: Annotated[str, "Blob with the list of tools and their schemas."]
        tools: Annotated[list[Listed], "Tools, without their schemas."]
        warnings: Annotated[list[str], "Parts that were left out, and why."]

        def apply(self, toolset: Toolset) -> None:
            toolset.digest, toolset.refreshing = self.digest, False

    class RefreshFailed(Event):
        """The list of tools could not be read; an earlier one stays."""

        TOPIC = "toolset.refresh_failed.v1"
        refresh: Annotated[str, "Id of the refresh."]
        code: aggregate.ErrorCode
        reason: aggregate.ErrorMessage

        def apply(self, toolset: Toolset) -> None:
            toolset.refreshing, toolset.failed = False, True
            toolset.stalls += self.code == "stalled"

    class Removed(Event):
        """The toolset and its secret were removed."""

        TOPIC = "toolset.removed.v1"

        def apply(self, toolset: Toolset) -> None:
            toolset.deleted, toolset.secret, toolset.refreshing = True, None, False

    @property
    def place(self) -> str:
        """The SHA-256 of where its requests go, with a secret that was given for that place only."""
        return place(self.kind, self.settings)

    def change(self, at: datetime, **settings: Unpack[ToolsetSettings]) -> None:
        known = ToolsetSettings(
            kind=self.kind,
            description=self.description,
            settings=self.settings,
            secret=self.secret,
            timeout_s=self.timeout_s,
        )
        if self.deleted or settings != known:
            self.record(self.Changed, at, **settings)

    def request_refresh(self, at: datetime, *, refresh: str) -> None:
        """A refresh that is under way is superseded."""
        if self.refresh != refresh:
            self.record(self.RefreshRequested, at, refresh=refresh)

    def refreshed(
        self, at: datetime, *, refresh: str, digest: str, tools: Sequence[Listed], warnings: Sequence[str] = ()
    ) -> None:
        """Record the list, unless another one was requested since."""
        if self.refreshing and self.refresh == refresh:
            self.record(self.Refreshed, at, refresh=refresh, digest=digest, tools=list(tools), warnings=list(warnings))

    def fail_refresh(self, at: datetime, *, code: str, reason: str, refresh: str | None = None) -> None:
        if self.refreshing and refresh in (None, self.refresh):
            self.record(self.RefreshFailed, at, refresh=self.refresh, code=code, reason=reason)

    def retry_refresh(self, at: datetime) -> None:
        if self.failed and not self.deleted:
            self.record(self.RefreshRequested, at, refresh=self.refresh)

    def remove(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Removed, at)
