"""Toolsets of kind `sql`: queries of a database that only reads."""
