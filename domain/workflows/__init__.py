"""Workflows: graphs, values and the engine."""
