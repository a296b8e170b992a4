"""Durable consumers: commands and reactions."""
