"""Handlers of model calls."""
