"""The index in PostgreSQL: vectors with pgvector, words in a postings table, both searched in one statement.

A version is a set of tables: `segments_1`, `postings_1`, `statistics_1`.
"""

from adapters.pgvector.index import PgvectorIndex
from adapters.pgvector.store import stored
from adapters.pgvector.tables import set_up

__all__ = ["PgvectorIndex", "set_up", "stored"]
