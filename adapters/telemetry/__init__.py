"""Metrics and trace export."""
