"""Port of the annotations of the read tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from handlers.ports.documents import Vectors

MOST = 5000
"""Maximum number of annotations of an app that questions are compared with: the newest."""


class Nearest(NamedTuple):
    """The annotation whose question is closest to another, by the cosine of the two."""

    annotation: str
    score: float


class Annotations(Protocol):
    """Annotations of the read tables, which follow the log within milliseconds."""

    async def of(self, tenant: str, app: str, sequence: int) -> Sequence[str]:
        """The ids of an app's annotations, the newest `MOST` of them, up to this sequence of `EVENTS` at least.

        Raises: Unavailable, also when the tables do not reach it in time.
        """
        ...

    async def nearest(self, tenant: str, app: str, model: str, vector: Vectors) -> Nearest | None:
        """The annotation that is closest to a vector, among those of an app that a model of this identity embedded;
        None where there is none.

        Raises: ModelError `embedding_changed` for vectors of another length; Unavailable.
        """
        ...
