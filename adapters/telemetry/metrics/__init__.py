"""Figures for Prometheus: calls of models as they end, and how the servers, queues and tables are."""
