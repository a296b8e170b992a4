"""Text extraction from files."""
