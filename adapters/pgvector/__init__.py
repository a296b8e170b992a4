"""The index in PostgreSQL: vectors with pgvector, words in a postings table, both searched in one statement.

It has versions, each a set of tables (`segments_1`, `postings_1`, `statistics_1`) for the vectors of one embedding
model. The table `routes` says in which version a dataset is: changing that is the swap of an alias. A new version is
built beside those that are searched.
"""

from adapters.pgvector.index import PgvectorIndex
from adapters.pgvector.tables import set_up

__all__ = ["PgvectorIndex", "set_up"]
