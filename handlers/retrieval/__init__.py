"""Handlers that search, select and rerank segments."""
