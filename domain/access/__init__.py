"""End users."""
