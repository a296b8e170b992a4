"""Toolsets of servers that speak the Model Context Protocol."""
