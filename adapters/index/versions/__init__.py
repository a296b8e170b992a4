"""An index of several versions, each for the vectors of one embedding model, wherever these are kept.

Rows in PostgreSQL say in which version a dataset is searched, what must never come back and what is being built:
changing such a route is the swap of an alias. A `Store` keeps what the versions hold.
"""

from adapters.index.versions.changes import locked_versions
from adapters.index.versions.connection import Connection, Cursor, transaction
from adapters.index.versions.index import CANDIDATES, Question, VersionedIndex
from adapters.index.versions.schema import Schema
from adapters.index.versions.state import State, drop, state
from adapters.index.versions.store import Gone, Scope, Stored

__all__ = [
    "CANDIDATES",
    "Connection",
    "Cursor",
    "Gone",
    "Question",
    "Schema",
    "Scope",
    "State",
    "Stored",
    "VersionedIndex",
    "drop",
    "locked_versions",
    "state",
    "transaction",
]
