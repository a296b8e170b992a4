from __future__ import annotations

from typing import Any

from domain.aggregate import new_id
from domain.tools.tool import SHOWN, Definition, listed
from domain.tools.toolset import Secret, Toolset
from tests.domain.scenario import NOW, given, made

SETTINGS: dict[str, Any] = {
    "kind": "mcp",
    "description": "Mail",
    "settings": {"url": "https://mail.example/mcp"},
    "secret": Secret(sealed="c2VjcmV0", hint="cret"),
    "timeout_s": 30.0,
}
FIRST, SECOND = new_id(), new_id()
TOOL: Definition = {
    "name": "send",
    "label": "",
    "description": "Send a mail. " * 50,
    "parameters": {"type": "object"},
    "destructive": True,
    "idempotent": False,
}
LIST: dict[str, Any] = {"digest": "5e" * 32, "tools": [listed(TOOL)], "warnings": []}


def toolset() -> Toolset:
    return Toolset.begin(Toolset.Registered, "mail", NOW, **SETTINGS)


def request(toolset: Toolset) -> None:
    toolset.request_refresh(NOW, refresh=FIRST)


def fail(toolset: Toolset) -> None:
    toolset.fail_refresh(NOW, code="unreachable", reason="Silence.")


def remove(toolset: Toolset) -> None:
    toolset.remove(NOW)


def test_is_registered() -> None:
    made(toolset()).then(Toolset.Registered).whole(**SETTINGS)


def test_changes_only_where_something_is_different() -> None:
    given(toolset()).when(lambda it: it.change(NOW, **SETTINGS)).nothing()
    changed = {**SETTINGS, "timeout_s": 5.0}
    given(toolset()).once(lambda it: it.change(NOW, **changed), Toolset.Changed, timeout_s=5.0)


def test_a_removed_one_is_registered_again_without_its_secret() -> None:
    removed = given(toolset()).once(remove, Toolset.Removed)
    assert removed.aggregate.secret is None
    removed.when(lambda it: it.change(NOW, **SETTINGS)).then(Toolset.Changed)
    assert not removed.aggregate.deleted


def test_a_refresh_is_requested_once_and_ends_once() -> None:
    scenario = given(toolset()).once(request, Toolset.RefreshRequested, refresh=FIRST)
    scenario.once(lambda it: it.refreshed(NOW, refresh=FIRST, **LIST), Toolset.Refreshed, digest=LIST["digest"])
    scenario.when(fail).nothing()
    assert scenario.aggregate.digest == LIST["digest"]


def test_a_superseded_refresh_ends_nothing() -> None:
    scenario = given(toolset(), request, lambda it: it.request_refresh(NOW, refresh=SECOND))
    scenario.when(lambda it: it.refreshed(NOW, refresh=FIRST, **LIST)).nothing()
    scenario.when(lambda it: it.fail_refresh(NOW, code="timeout", reason="Late.", refresh=FIRST)).nothing()
    scenario.when(lambda it: it.refreshed(NOW, refresh=SECOND, **LIST)).then(Toolset.Refreshed)


def test_a_failed_refresh_keeps_the_list_and_is_retried() -> None:
    scenario = given(toolset(), request, lambda it: it.refreshed(NOW, refresh=FIRST, **LIST))
    scenario.when(lambda it: it.request_refresh(NOW, refresh=SECOND)).then(Toolset.RefreshRequested)
    scenario.once(fail, Toolset.RefreshFailed, code="unreachable", refresh=SECOND)
    assert scenario.aggregate.digest == LIST["digest"]
    scenario.when(lambda it: it.retry_refresh(NOW)).then(Toolset.RefreshRequested, refresh=SECOND)


def test_a_list_has_the_beginning_of_descriptions() -> None:
    assert listed(TOOL) == {
        "name": "send",
        "description": TOOL["description"][:SHOWN],
        "destructive": True,
        "idempotent": False,
    }
