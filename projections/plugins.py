"""Installed plugins: the table `plugins`, of the house."""

from __future__ import annotations

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.tools.plugin import Plugin
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

plugins = ReadModel(
    "plugins",
    "Plugins that an operator installed, in the house: tenant _house.",
    key("id", "Name."),
    required("version", Text, "Version of the installed package."),
    required("kind", Text, "monitor, filter, tool, model or dify."),
    required("status", Text, "installed or removed."),
    required("digest", Text, "SHA-256 of the package, a blob of the house."),
    required("manifest", JSONB, "Manifest of the package."),
    required("content", Text, "Texts that a monitor gets: none, masked or full."),
    required("created_by", Text, "Actor who installed it first."),
    required("created_at", Time, "When it was first installed."),
    required("updated_at", Time, "Time of the last change."),
)


def _package(event: Plugin.Installed | Plugin.Replaced) -> Row:
    return {
        "version": event.package_version,
        "kind": event.manifest["kind"],
        "status": "installed",
        "digest": event.digest,
        "manifest": event.manifest,
        "content": event.content,
    }


@plugins.makes(Plugin.Installed, new=originator)
def installed(event: Plugin.Installed, message: Recorded) -> Row:
    return {"id": event.originator_id, **_package(event), "created_by": message.metadata.actor}


@plugins.changes(Plugin.Replaced)
def replaced(row: Row, event: Plugin.Replaced, message: Recorded) -> Row:
    return _package(event)


@plugins.changes(Plugin.Removed)
def removed(row: Row, event: Plugin.Removed, message: Recorded) -> Row:
    return {"status": "removed"}
