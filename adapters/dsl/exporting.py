"""Export of an app as a file: the one that it was imported from, where nothing of it was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.dsl.configuration import model_config
from adapters.dsl.importing import app_fields, icon_fields
from adapters.dsl.reading import AppFile
from adapters.dsl.version import NEWEST
from adapters.dsl.writing import changed, write


def of_graph(app: Mapping[str, Any], file: AppFile | None, document: Mapping[str, Any]) -> bytes:
    """The file of an app (its row in `apps`) with a graph: `file`, where it was imported and is as it was then."""
    if file:
        return changed(file, named(file.document, app))
    return write(named({**_beginning(), **document}, app))


def of_configuration(
    app: Mapping[str, Any], file: AppFile | None, row: Mapping[str, Any] | None, *, as_imported: bool
) -> bytes:
    """The file of an app without a graph, with its newest configuration (a row of `app_model_configs`)."""
    if file and as_imported:
        return changed(file, named(file.document, app))
    base = file.document if file else {**_beginning(), "app": {}, "model_config": {}}
    config = model_config(row, base["model_config"]) if row else base["model_config"]
    return write(named({**base, "model_config": config}, app))


def _beginning() -> dict[str, Any]:
    return {"version": ".".join(map(str, NEWEST)), "kind": "app"}


def named(document: Mapping[str, Any], app: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the name, description and icon that the app has by now."""
    own = dict(document["app"])
    fields = {"name": app["name"], "description": app["description"], "mode": app["mode"]}
    if app_fields(document, app["mode"]) != fields:
        own |= fields
    icon = app["icon"] and {"type": app["icon_type"], "icon": app["icon"], "background": app["icon_background"]}
    if app["icon_type"] != "image" and icon_fields(document) != icon:
        own |= {"icon_type": "emoji", "icon": app["icon"], "icon_background": app["icon_background"]}
    return {**document, "app": own}
