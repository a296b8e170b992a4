from __future__ import annotations

import pytest

from domain.aggregate import new_id
from domain.chat import tags as limits
from domain.chat.tags import Tags
from tests.domain.scenario import NOW, given, made

TAG, OTHER, APP = new_id(), new_id(), new_id()


def tags() -> Tags:
    return Tags.begin(Tags.Begun, "app", NOW)


def create(it: Tags) -> None:
    it.create(NOW, tag=TAG, name="Billing")


def bind(it: Tags) -> None:
    it.bind(NOW, tag=TAG, target=APP)


def test_begin_without_tags() -> None:
    made(tags()).then(Tags.Begun)


def test_a_tag_is_created_once() -> None:
    given(tags()).once(create, Tags.Created, tag=TAG, name="Billing")


@pytest.mark.parametrize("name", ["Billing", "BILLING"])
def test_a_name_is_given_once(name: str) -> None:
    scenario = given(tags(), create).when(lambda it: it.create(NOW, tag=OTHER, name=name)).rejects("exists", "name")
    scenario.when(lambda it: it.create(NOW, tag=OTHER, name="Sales")).then(Tags.Created)
    scenario.when(lambda it: it.rename(NOW, tag=OTHER, name=name)).rejects("exists", "name")


def test_a_tag_is_renamed_once_also_to_other_letters() -> None:
    given(tags(), create).once(lambda it: it.rename(NOW, tag=TAG, name="BILLING"), Tags.Renamed, name="BILLING")


def test_the_name_of_a_deleted_tag_is_free() -> None:
    scenario = given(tags(), create).when(lambda it: it.remove(NOW, tag=TAG)).then(Tags.Deleted, tag=TAG)
    scenario.when(lambda it: it.create(NOW, tag=OTHER, name="Billing")).then(Tags.Created)


def test_a_tag_is_given_and_taken_once() -> None:
    scenario = given(tags(), create).once(bind, Tags.Bound, tag=TAG, target=APP)
    scenario.once(lambda it: it.unbind(NOW, tag=TAG, target=APP), Tags.Unbound, tag=TAG, target=APP)


def test_a_tag_must_be_there() -> None:
    scenario = given(tags())
    scenario.when(lambda it: it.rename(NOW, tag=TAG, name="x")).rejects("not_found", "tag")
    scenario.when(lambda it: it.remove(NOW, tag=TAG)).rejects("not_found", "tag")
    scenario.when(bind).rejects("not_found", "tag")
    scenario.when(lambda it: it.unbind(NOW, tag=TAG, target=APP)).rejects("not_found", "tag")


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST", 1)
    monkeypatch.setattr(limits, "MOST_BOUND", 1)
    scenario = given(tags(), create, bind)
    scenario.when(lambda it: it.create(NOW, tag=OTHER, name="Sales")).rejects("too_many", None)
    scenario.when(lambda it: it.bind(NOW, tag=TAG, target=OTHER)).rejects("too_many", "tag")
