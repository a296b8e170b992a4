"""App files in the shapes that occur: each has the report that is stored, and comes back as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.dsl import exporting
from adapters.dsl.importing import app_fields, icon_fields, imported
from adapters.dsl.model_config import configuring
from adapters.dsl.reading import AppFile, read, without_secrets
from adapters.dsl.writing import write
from domain.aggregate import Rejection, new_id
from domain.chat.app import App
from domain.workflows.drawing import as_mermaid, as_text
from domain.workflows.graph import load
from domain.workflows.mapping import Replacements
from handlers.commands.chat import ConfigureApp
from projections.app_model_configs import app_model_configs
from tests.adapters.dsl.reports import FILES, KNOWN, MAPPING, expected, report
from tests.projections.history import History

READABLE = [file for file in FILES if not file.name.startswith("rejected")]
APPS = {file.name: read(file.read_bytes()) for file in READABLE}
"""The files that can be read, by name."""

GRAPHS = [name for name, file in APPS.items() if file.is_workflow]
CONFIGURED = [name for name, file in APPS.items() if not file.is_workflow]


def row(file: AppFile, **changes: Any) -> dict[str, Any]:
    """The row in `apps` of an app that was imported."""
    icon = icon_fields(file.document) or {"type": None, "icon": None, "background": None}
    named = {"icon_type": icon["type"], "icon": icon["icon"], "icon_background": icon["background"]}
    return {**app_fields(file.document, file.mode), **named, **changes}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_has_the_report_that_is_stored(file: Path) -> None:
    assert report(file.read_bytes()) == json.loads(expected(file).read_text(encoding="utf-8"))


def test_every_status_and_every_mode_occurs() -> None:
    assert len(FILES) >= 60
    found = [json.loads(expected(file).read_text(encoding="utf-8")) for file in FILES]
    assert {each.get("status") for each in found} == {"runs", "changed", "cannot", None}
    assert {file.mode for file in APPS.values()} == {"workflow", "advanced-chat", "chat", "completion", "agent-chat"}


@pytest.mark.parametrize("name", APPS)
def test_an_app_that_was_not_changed_is_exported_as_it_was_imported(name: str) -> None:
    data = (FILES[0].parent / name).read_bytes()
    made = imported(data, KNOWN, MAPPING)
    kept = read(made.original)
    if made.configuring is None:
        found = exporting.of_graph(row(kept), kept, made.document)
    else:
        found = exporting.of_configuration(row(kept), kept, None, as_imported=True)
    if made.secrets:
        assert b"hush" not in found
        assert read(found).document["workflow"]["graph"] == read(data).document["workflow"]["graph"]
    else:
        assert found == data


@pytest.mark.parametrize("name", APPS)
def test_an_app_with_another_name_differs_in_nothing_else(name: str) -> None:
    file = APPS[name]
    app = row(file, name="Weir")
    if file.is_workflow:
        found = read(exporting.of_graph(app, file, file.document))
    else:
        found = read(exporting.of_configuration(app, file, None, as_imported=True))
    assert found.document["app"]["name"] == "Weir"
    before = {**file.document, "app": {**file.document["app"], "name": "Weir"}}
    assert (
        {**found.document, "app": {**before["app"], **found.document["app"]}}
        == found.document
        == before | {"app": {**before["app"], "description": app["description"]}}
    )


@pytest.mark.parametrize("name", GRAPHS)
def test_a_draft_without_a_file_is_written_as_it_was_saved(name: str) -> None:
    file = APPS[name]
    found = read(exporting.of_graph(row(file), None, file.document))
    assert found.document == {"version": "0.7.0", "kind": "app", **file.document}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_keeps_its_digest_when_it_is_normalised_and_written(name: str) -> None:
    graph = load(APPS[name].document)
    assert load(graph.normalised).digest == load(read(write(APPS[name].document)).document).digest == graph.digest
    assert as_text(graph).count("\n") >= len(graph.nodes)
    assert as_mermaid(graph).startswith("flowchart LR\n")


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_configuration_is_one_that_the_command_takes_and_comes_back(name: str) -> None:
    made = imported(APPS[name].data, KNOWN, MAPPING).configuring
    assert made is not None
    if "model" not in made.fields:
        assert not made.ready
        return
    datasets = [new_id() for _ in made.fields["datasets"]]
    fields = {**made.fields, "datasets": datasets}
    command = ConfigureApp.model_validate({"app": new_id(), **fields})
    history = History()
    app = App.begin(App.Created, new_id(), history.now, name="Lock", description="", mode=APPS[name].mode)
    settings = {**command.model_dump(exclude={"app", "model"}), "model": command.model.settings()}
    app.configure(history.now, **{**settings, "features": command.features.settings()})  # type: ignore[typeddict-item]
    history.record(app)
    (configured,) = history.rows(app_model_configs)
    file = read(exporting.of_configuration(row(APPS[name]), APPS[name], configured, as_imported=False))
    alone = read(exporting.of_configuration(row(APPS[name]), None, configured, as_imported=False))
    for exported in (file, alone):
        again = configuring(exported.document, exported.document["model_config"], None, Replacements()).fields
        assert ConfigureApp.model_validate({"app": command.app, **again}) == command


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, each in inner for place in places(each, (*path, name)))]


PLACES = {name: places(file.document)[1:] for name, file in APPS.items()}
ODD = st.sampled_from(
    [
        *(None, True, 0, -1, 2.5, 2**63 - 1, "", "x", "9" * 400),
        *([], [[]], {}, {"": None}, [None, 1, "a", {}], ["a", 1], {"a": []}),
    ]
)


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """A file with odd values in some places, and others gone."""
    name = draw(st.sampled_from(sorted(APPS)))
    document = copy.deepcopy(APPS[name].document)
    for place in draw(st.lists(st.sampled_from(PLACES[name]), min_size=1, max_size=4)):
        *outer, last = place
        around: Any = document
        try:
            for part in outer:
                around = around[part]
            if draw(st.booleans()):
                around[last] = draw(ODD)
            else:
                del around[last]
        except (KeyError, IndexError, TypeError):  # an earlier change took this place away
            continue
    return document


@given(spoiled())
@settings(max_examples=300, deadline=None)
def test_no_file_is_more_than_reported_or_refused(document: dict[str, Any]) -> None:
    try:
        made = imported(write(document), KNOWN, MAPPING)
    except Rejection as refused:
        assert refused.message  # noqa: PT017  # either way is fine
        return
    assert json.dumps(made.report.plain)
    assert read(made.original).document == without_secrets(document)[0]
    if made.configuring is None:
        graph = load(made.document)
        assert as_text(graph) or not graph.nodes
        assert as_mermaid(graph)
    elif made.configuring.ready:
        assert made.configuring.fields
