"""Handlers that ingest documents and keep the index."""
