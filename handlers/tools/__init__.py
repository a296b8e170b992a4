"""Handlers of agents and their tools."""
