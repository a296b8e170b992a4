"""The index in PostgreSQL: vectors with pgvector, words in a postings table, both searched in one statement.

A version is a set of tables: `segments_1`, `postings_1`, `statistics_1`.
"""

from adapters.index.pgvector.index import PgvectorIndex
from adapters.index.pgvector.store import stored
from adapters.index.pgvector.tables import set_up

__all__ = ["PgvectorIndex", "set_up", "stored"]
