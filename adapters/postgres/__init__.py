"""PostgreSQL: the read tables, the projector that keeps them up to date, and the rebuild."""
