"""Handlers of end users."""
