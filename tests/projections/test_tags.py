from __future__ import annotations

import pytest

from domain.aggregate import Aggregate, new_id
from domain.chat.tags import Tags
from projections.tag_bindings import tag_bindings
from projections.tags import tags
from tests.projections.history import History


def made(history: History, kind: str, *names: str) -> tuple[Tags, list[str]]:
    """The tags of a kind, and the ids of those of these names."""
    found, ids = Tags.begin(Tags.Begun, kind, history.now), [new_id() for _ in names]
    for id, name in zip(ids, names, strict=True):
        found.create(history.now, tag=id, name=name)
    history.record(found)
    return found, ids


def test_given_tags_when_one_is_renamed_and_one_deleted_then_the_table_has_the_other() -> None:
    history = History()
    found, (kept, gone) = made(history, "app", "Plant", "Old")
    found.rename(history.now, tag=kept, name="Plant 2")
    found.remove(history.now, tag=gone)
    history.record(found)
    (row,) = history.rows(tags)
    assert row["created_at"] < row["updated_at"]
    assert row | {"created_at": None, "updated_at": None} == {
        "tenant_id": "default",
        "id": kept,
        "type": "app",
        "name": "Plant 2",
        "created_by": "ada",
        "created_at": None,
        "updated_at": None,
        "log_position": 2,
    }


def test_given_a_tag_when_it_is_given_and_taken_then_its_binding_comes_and_goes() -> None:
    history = History()
    app = history.app()
    found, (tag,) = made(history, "app", "Plant")
    found.bind(history.now, tag=tag, target=app.id)
    at = history.record(found)
    (row,) = history.rows(tag_bindings)
    assert (row["tag_id"], row["target_id"], row["created_by"], row["created_at"]) == (tag, app.id, "ada", at)
    found.unbind(history.now, tag=tag, target=app.id)
    history.record(found)
    assert history.rows(tag_bindings) == []


@pytest.mark.parametrize("which", ["app", "dataset", "tag"])
def test_given_bindings_when_the_tag_or_its_target_is_deleted_then_they_go(which: str) -> None:
    history = History()
    target: Aggregate = history.dataset() if which == "dataset" else history.app()
    found, (tag, other) = made(history, "knowledge" if which == "dataset" else "app", "Plant", "Other")
    kept = new_id()
    for each in (target.id, kept):
        found.bind(history.now, tag=tag, target=each)
    found.bind(history.now, tag=other, target=kept)
    history.record(found)
    if which == "tag":
        found.remove(history.now, tag=tag)
        history.record(found)
    else:
        target.delete(history.now)  # type: ignore[attr-defined]
        history.record(target)
    left = {(row["tag_id"], row["target_id"]) for row in history.rows(tag_bindings)}
    assert left == {(other, kept)} | (set() if which == "tag" else {(tag, kept)})
