"""Adapters of the ports: the only place that names a vendor."""
