"""Import of an app file: what is sent for it, and the report on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.dsl.code import unreadable
from adapters.dsl.features import Configuring
from adapters.dsl.model_config import configuring
from adapters.dsl.reading import AppFile, read, without_secrets
from adapters.dsl.version import Version, version
from adapters.dsl.writing import emptied
from domain.workflows.graph import FAILED, Graph, load
from domain.workflows.mapping import Replacements, mapped
from domain.workflows.needs import Known
from domain.workflows.report import Reason, Report, of_graph

NAME, DESCRIPTION, MOST_ICON = 255, 2000, 64
"""Maximum characters of the name of an app, of its description and of an icon."""

OLD_SUCCESS = "success-branch"

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Import:
    """An app file, ready to be sent."""

    file: AppFile
    original: bytes
    """The bytes of the file, without secrets."""
    document: dict[str, Any]
    """The draft of a graph, or the source of a configuration: mapped, without secrets."""
    secrets: Mapping[str, str]
    version: Version
    report: Report
    configuring: Configuring | None
    """The fields of `app.configure`; None for a graph."""


def app_fields(document: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """The fields of `app.create`."""
    app = document["app"]
    name = text(app.get("name")).strip() or "Imported app"
    return {"name": name[:NAME], "description": text(app.get("description"))[:DESCRIPTION], "mode": mode}


def icon_fields(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The icon of `app.set_icon`, where it is an emoji: images are not in the file."""
    app = document["app"]
    icon, background = app.get("icon"), text(app.get("icon_background"))
    if not isinstance(icon, str) or not 0 < len(icon) <= MOST_ICON or app.get("icon_type") not in (None, "", "emoji"):
        return None
    return {"type": "emoji", "icon": icon, "background": background if _COLOUR.fullmatch(background) else None}


def imported(data: bytes, known: Known | None, given: Replacements) -> Import:
    """Raises: Rejection."""
    file = read(data)
    found = version(file.document)
    plain, secrets = without_secrets(file.document)
    document = mapped(plain, given)
    about = {"name": text(file.document["app"].get("name")), "mode": file.mode, "version": found.text}
    if found.reason:
        about["note"] = found.reason
    configured = None
    if file.is_workflow:
        graph = load(document)
        others = unreadable(graph)
        for id, reason in _branches(document, graph):
            others.setdefault(id, []).append(reason)
        report = of_graph(graph, load(plain), known, given, others, **about)
    else:
        configured = configuring(document, plain["model_config"], known, given)
        report = configured.report(**about)
    return Import(file, emptied(file), document, secrets, found, report, configured)


def _branches(document: Mapping[str, Any], graph: Graph) -> Iterator[tuple[str, Reason]]:
    """The nodes with an edge that Dify never takes, and that is taken here."""
    for edge in document["workflow"]["graph"].get("edges") or []:
        node = graph.nodes.get(text(edge.get("source")))
        if node and node.strategy == FAILED and edge.get("sourceHandle") == OLD_SUCCESS:
            yield node.id, Reason("changed", "sourceHandle", f"The edges of {OLD_SUCCESS} are taken after success.")


def text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
