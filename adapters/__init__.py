"""The world behind the ports: the only place that names a vendor."""
