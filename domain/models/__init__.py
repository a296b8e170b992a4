"""Providers, model calls, replays and budgets."""
