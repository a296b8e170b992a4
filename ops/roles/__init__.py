"""The worker roles, a file each: imported only where the role runs, so that a worker stays small."""

from __future__ import annotations

from ops.settings import Settings

ROLES = ("embed", "project", "commands", "ingest", "answer", "view")
"""The roles that every installation runs, the slowest to start first."""

EXPORT = "export"
"""Sends traces, where a collector is set."""

ARCHIVE = "archive"
"""Follows the log into an archive, where one is set."""

EVERY = (*ROLES, EXPORT, ARCHIVE)

READS_ONLY = (ARCHIVE,)
"""The roles that may connect as a user who can only read."""


class RoleFailed(Exception):
    """A role cannot run until an operator fixes what the message says."""


def wanted(settings: Settings) -> tuple[str, ...]:
    """The roles that these settings have work for."""
    needs = {EXPORT: settings.otlp_endpoint, ARCHIVE: settings.archive_url}
    return tuple(role for role in EVERY if needs.get(role, True))
