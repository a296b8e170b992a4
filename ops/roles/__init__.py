"""What each role of a worker runs: a file a role, imported only where it runs, so that a worker stays small."""

from __future__ import annotations

ROLES = ("embed", "project", "commands", "ingest", "answer")
"""The roles, those first that take long to start."""
