"""The index in PostgreSQL: vectors with pgvector, words in a postings table, both searched in one statement.

A version is a set of tables: `segments_1`, `postings_1`, `statistics_1`.
"""
