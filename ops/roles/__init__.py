"""The worker roles, a file each: imported only where the role runs, so that a worker stays small."""

from __future__ import annotations

from ops.settings import Settings

VIEW = "view"
"""Serves the viewer."""

ROLES = ("embed", "project", "commands", "ingest", "answer", VIEW)
"""The roles that every installation runs, the slowest to start first."""

EXPORT = "export"
"""Sends traces, where a collector is set."""

ARCHIVE = "archive"
"""Follows the log into an archive, where one is set."""

EVERY = (*ROLES, EXPORT, ARCHIVE)

GUESTS = (VIEW, EXPORT, ARCHIVE)
"""The roles that append nothing to the log: on NATS, each has an account of its own, which has no streams."""

ABOUT_CODE = b"code"
"""The request to a worker of `answer` that asks what runs code."""

WITHOUT_SECRET = ("embed",)
"""The roles that are no guests, and neither sign nor decrypt: they need no secret key."""

WITHOUT_TABLES = ("commands", "embed", ARCHIVE)
"""The roles that need no PostgreSQL."""

WRITE_INDEX = ("ingest", "answer")
"""The roles that read the tables, and write the search index and its cache."""


class RoleFailed(Exception):
    """A role cannot run until an operator fixes what the message says."""


def wanted(settings: Settings) -> tuple[str, ...]:
    """The roles that these settings have work for."""
    needs = {EXPORT: settings.otlp_endpoint, ARCHIVE: settings.archive_url}
    return tuple(role for role in EVERY if needs.get(role, True))
