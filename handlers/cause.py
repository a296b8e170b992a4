"""The cause of a recorded call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from domain.log import Metadata, commit_id
from domain.models.model_call import ModelCall


@dataclass(frozen=True, slots=True)
class Cause:
    """The message that led to a call, and the noun that the call serves, in its n-th attempt.

    `completed`: by step, the calls of earlier attempts that completed, with their ids. They are not repeated. `made`:
    by step, the number of calls of earlier attempts that did not complete. `app` is the app whose limits count its
    tokens.
    """

    metadata: Metadata
    noun: str
    id: str
    attempt: int
    completed: Mapping[str, tuple[str, ModelCall.Completed]] = field(default_factory=dict)
    made: Mapping[str, int] = field(default_factory=dict)
    app: str | None = None
    prefix: str = ""
    """Before the names of all steps: that of a tool, whose calls are its own."""

    def within(self, tool_call: str) -> Cause:
        """The cause of the calls that a call of a tool makes itself: the commit that requested it."""
        metadata = replace(self.metadata, id=tool_call)
        return replace(self, metadata=metadata, completed={}, made={}, prefix=f"{self.prefix}tool:{tool_call}/")

    def call(self, step: str, attempt: int | None = None, number: int = 1) -> str:
        """The id of the call that an attempt (this one by default) makes in this step, in its n-th try."""
        again = f":{number}" if number > 1 else ""
        return commit_id(self.id, f"{self.prefix}{step}:{attempt or self.attempt}{again}")
