"""Work that failed: dead letters."""
