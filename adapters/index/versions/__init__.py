"""An index of several versions, each for the vectors of one embedding model; a `Store` keeps and searches them.

Rows in PostgreSQL name the version in which a dataset is searched, what must never come back and what is being built:
changing such a route is the swap of an alias.
"""
