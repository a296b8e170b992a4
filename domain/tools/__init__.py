"""Toolsets, tool calls and plugins."""
