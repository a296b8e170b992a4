"""Toolsets of plugins of Dify."""
