"""Toolsets and tool calls."""
