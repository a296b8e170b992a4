"""Hosts of plugins: contained processes that speak JSON lines."""
