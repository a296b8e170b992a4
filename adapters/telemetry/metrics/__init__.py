"""Metrics for Prometheus: calls of models, and the state of servers, queues and tables."""
