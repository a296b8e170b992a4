"""Adapters of tools."""
