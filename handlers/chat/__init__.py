"""Handlers that answer messages."""
