"""Benchmarks: throughput and latency of Headrace compared with the limits of its parts."""
