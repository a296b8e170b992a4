"""Who uses it: end users."""
