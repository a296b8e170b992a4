"""The digest of a table's rules: code that counts, and code that does not."""

from __future__ import annotations

import pytest

from adapters.postgres import rules
from projections.catalog import READ_MODELS

SOURCES = {
    "domain": "",
    "domain.app": '"""Apps."""\n\nclass App:\n    """An app."""\n\n    size = 1\n',
    "domain.user": "class User: ...\n",
    "projections": '"""Tables."""\n',
    "projections.engine": "from __future__ import annotations\nclass ReadModel: ...\n",
    "projections.apps": """
from dataclasses import dataclass
from domain.app import App
from projections.engine import ReadModel

apps = ReadModel("apps", "Apps of tenants.", required("size", int, "How large it is."))
\"\"\"All of them.\"\"\"

@apps.makes(App)
def made(event):
    # How large it is.
    if event.size < 0:
        raise ValueError("It is too small.")
    return {**event.columns, "size": App.size}
""",
    "projections.users": """
from domain import user
from projections.engine import ReadModel

users = ReadModel("users", "Who asks.", key("id", "User."))
""",
}


def digests(sources: dict[str, str] = SOURCES, engine: str = "fold = 1\n") -> dict[str, str]:
    return rules.digests_of(sources, [engine])


def changed(module: str, old: str, new: str) -> set[str]:
    """The tables whose rules are others when that is written instead."""
    assert old in SOURCES[module]
    now = digests({**SOURCES, module: SOURCES[module].replace(old, new)})
    return {table for table, digest in digests().items() if now[table] != digest}


def test_every_table_has_rules() -> None:
    assert rules.digests().keys() == {model.name for model in READ_MODELS}
    assert len(set(rules.digests().values())) > len(READ_MODELS) * 4 // 5, "those of one file have the same"


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("domain.app", "An app.", "Something that answers."),
        ("domain.app", '    """An app."""\n', ""),
        ("projections.apps", "# How large it is.", "# Its size."),
        ("projections.apps", "It is too small.", "Too small."),
        ("projections.apps", "Apps of tenants.", "One row for each app."),
        ("projections.apps", "How large it is.", "Size."),
        ("projections.apps", "All of them.", "Every app."),
        ("projections.apps", "    return", "\n\n    return"),
        ("projections.engine", "class", "\n\nclass"),
    ],
)
def test_prose_does_not_count(module: str, old: str, new: str) -> None:
    assert changed(module, old, new) == set()


@pytest.mark.parametrize(
    ("module", "old", "new", "tables"),
    [
        ("projections.apps", "< 0", "< 1", {"apps"}),
        ("projections.apps", '{**event.columns, "size": App.size}', '{"size": App.size, **event.columns}', {"apps"}),
        ("projections.apps", "from dataclasses", "from attrs", {"apps"}),
        ("projections.apps", '"size", int', '"size", float', {"apps"}),
        ("projections.users", 'key("id"', 'required("id"', {"users"}),
        ("domain.app", "size = 1", "size = True", {"apps"}),
        ("domain.user", "User: ...", "User:\n    name = 'x y'", {"users"}),
        ("projections.engine", "class", "x = 1\nclass", {"apps", "users"}),
    ],
)
def test_rules_count_for_the_tables_that_they_make(module: str, old: str, new: str, tables: set[str]) -> None:
    assert changed(module, old, new) == tables


def test_what_writes_the_rows_counts_for_all() -> None:
    now = digests(engine="fold = 2\n")
    assert all(now[table] != digest for table, digest in digests().items())


def test_files_may_move_into_folders() -> None:
    places = {
        "domain.app": "domain.chat.app",
        "projections.engine": "projections.engine.read_model",
        "projections.apps": "projections.chat.apps",
    }
    moved = {"domain.chat": '"""Chat."""\n', "projections.engine": "", "projections.chat": ""}
    for name, text in SOURCES.items():
        for old, new in places.items():
            text = text.replace(f"from {old} import", f"from {new} import")
        moved[places.get(name, name)] = text
    assert digests(moved) == digests()


def test_relative_imports_are_followed() -> None:
    apps = SOURCES["projections.apps"].replace("from projections.engine", "from .engine")
    assert digests({**SOURCES, "projections.apps": apps}) == digests()
