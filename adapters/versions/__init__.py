"""An index of several versions, each for the vectors of one embedding model, wherever these are kept.

Rows in PostgreSQL say in which version a dataset is searched, what must never come back and what is being built:
changing such a route is the swap of an alias. A `Store` keeps what the versions hold.
"""

from adapters.versions.build import VersionedBuild
from adapters.versions.index import Question, VersionedIndex
from adapters.versions.schema import Schema
from adapters.versions.state import State, drop, state
from adapters.versions.store import Connection, Cursor, Gone, Scope, Stored

__all__ = [
    "Connection",
    "Cursor",
    "Gone",
    "Question",
    "Schema",
    "Scope",
    "State",
    "Stored",
    "VersionedBuild",
    "VersionedIndex",
    "drop",
    "state",
]
