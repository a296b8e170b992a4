from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from domain.aggregate import Rejection, new_id
from domain.workflows.workflow import Content, Workflow

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def of(document: str, **fields: Any) -> Content:
    return Content(**{"document": document, "graph": f"graph of {document}", "file": None, "secrets": {}, **fields})  # type: ignore[typeddict-item]


def saved(*documents: str) -> Workflow:
    workflow, before = Workflow.begin(Workflow.Begun, new_id(), NOON), None
    for document in documents:
        workflow.save(NOON, replaces=before, **of(document))
        before = document
    workflow.pending()
    return workflow


def test_a_draft_that_is_saved_again_is_no_event() -> None:
    workflow = saved("a")
    workflow.save(NOON, replaces=None, **of("a"))
    assert workflow.pending() == []


def test_a_draft_that_was_changed_meanwhile_is_not_overwritten() -> None:
    workflow = saved("a", "b")
    with pytest.raises(Rejection) as refused:
        workflow.save(NOON, replaces="a", **of("c"))
    assert (refused.value.code, refused.value.field, refused.value.details) == ("stale", "replaces", {"document": "b"})
    with pytest.raises(Rejection, match="no draft yet"):
        saved().save(NOON, replaces="a", **of("c"))


def test_versions_are_numbered_and_the_newest_runs() -> None:
    workflow = saved("a")
    workflow.publish(NOON, graph="graph of a", name="One", comment="")
    workflow.publish(NOON, graph="graph of a", name="One", comment="")
    workflow.save(NOON, replaces="a", **of("b"))
    workflow.publish(NOON, graph="graph of b", name="", comment="Better.")
    published = [event for event in workflow.pending() if isinstance(event, Workflow.Published)]
    assert [event.number for event in published] == [1, 2]
    assert workflow.newest == {**of("b"), "name": "", "comment": "Better."}


def test_what_was_not_checked_is_not_published() -> None:
    with pytest.raises(Rejection) as refused:
        saved("a", "b").publish(NOON, graph="graph of a", name="", comment="")
    assert refused.value.code == "stale"


def test_a_version_is_restored_into_the_draft() -> None:
    workflow = saved("a")
    workflow.publish(NOON, graph="graph of a", name="One", comment="")
    workflow.save(NOON, replaces="a", **of("b"))
    workflow.restore(NOON, number=1)
    assert workflow.draft == of("a")
    workflow.pending()
    workflow.restore(NOON, number=1)
    assert workflow.pending() == []
    with pytest.raises(Rejection, match="has 1 versions"):
        workflow.restore(NOON, number=2)


def test_the_secrets_in_use_are_those_of_the_draft_and_of_the_version_that_runs() -> None:
    workflow = saved()
    workflow.save(NOON, replaces=None, **of("a", secrets={"KEY": "x"}))
    workflow.publish(NOON, graph="graph of a", name="", comment="")
    workflow.save(NOON, replaces="a", **of("b", secrets={"KEY": "y", "URL": "z"}))
    assert workflow.sealed == {("KEY", "x"), ("KEY", "y"), ("URL", "z")}
