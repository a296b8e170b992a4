"""Traces: the tables `traces` and `spans`."""
