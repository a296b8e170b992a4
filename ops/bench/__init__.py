"""Benchmarks: what Headrace does in a second, beside what its parts can do at most."""
