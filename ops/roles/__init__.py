"""What each role of a worker runs: a file a role, imported only where it runs, so that a worker stays small."""

from __future__ import annotations

from ops.settings import Settings

ROLES = ("embed", "project", "commands", "ingest", "answer", "view")
"""The roles, those first that take long to start."""

EXPORT = "export"
"""The role that is there only where there is somewhere to send traces to."""


class RoleFailed(Exception):
    """A role cannot go on until somebody mends something; the message says what."""


def wanted(settings: Settings) -> tuple[str, ...]:
    """The roles that these settings have work for."""
    return (*ROLES, EXPORT) if settings.otlp_endpoint else ROLES
