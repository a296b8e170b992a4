from __future__ import annotations

from domain.models.default_model import DefaultModel
from domain.models.model import Entry, Model, Prices, begun, merged, model_id
from tests.domain.scenario import NOW, given, made

ENTRY = Entry(
    type="chat",
    context_window=16_384,
    max_output=None,
    abilities={"tools": True},
    prices=Prices(input=0.2, output=0.6, cached=None, cache_write=None),
    rpm=600,
    tpm=None,
)


def small() -> Model:
    return begun(None, "lab", "org/small:8b", NOW)


def test_begins_under_an_id_of_its_provider_and_name() -> None:
    made(small()).then(Model.Begun).whole(provider="lab", model="org/small:8b")
    known = small()
    assert begun(known, "lab", "org/small:8b", NOW) is known
    assert known.id == model_id("lab", "org/small:8b") != model_id("lab", "other")


def test_has_an_entry_that_is_replaced_as_a_whole_and_removed() -> None:
    scenario = given(small()).once(lambda it: it.set_entry(NOW, **ENTRY), Model.Set, **ENTRY)
    bare = Entry(**ENTRY | {"prices": None, "abilities": {}})
    scenario.once(lambda it: it.set_entry(NOW, **bare), Model.Set, prices=None)
    scenario.when(lambda it: it.remove_entry(NOW)).then(Model.Removed)
    scenario.when(lambda it: it.remove_entry(NOW)).rejects("not_found", "model")


def test_takes_what_its_server_lists_once() -> None:
    facts = {"server": "127.0.0.1:1", "type": "chat", "context_window": 4096, "max_output": None}
    scenario = given(small()).once(lambda it: it.take_listing(NOW, **facts), Model.Listed, **facts)
    larger = facts | {"context_window": 8192}
    scenario.once(lambda it: it.take_listing(NOW, **larger), Model.Listed, context_window=8192)


def test_the_entry_counts_before_what_was_measured_and_that_before_the_list_of_the_server() -> None:
    model = small()
    model.take_listing(NOW, server="127.0.0.1:1", type="chat", context_window=32_768, max_output=1024)
    assert (model.facts["context_window"], model.facts["abilities"]) == (32_768, {})
    model.take_check(NOW, check="c", abilities={"tools": False, "image": False}, context_window=4096)
    assert (model.facts["context_window"], model.facts["max_output"]) == (4096, 1024)
    assert model.facts["abilities"] == {"tools": False, "image": False}
    model.set_entry(NOW, **ENTRY)
    assert (model.facts["context_window"], model.facts["rpm"]) == (16_384, 600)
    assert model.facts["abilities"] == {"tools": True, "image": False}
    model.take_check(NOW, check="d", abilities={"tools": True})
    model.remove_entry(NOW)
    assert (model.facts["context_window"], model.facts["abilities"]) == (32_768, {"tools": True})


def test_each_fact_names_its_source() -> None:
    facts, sources = merged(
        {
            "entry": {"abilities": {"tools": True}},
            "measured": {"abilities": {"tools": False, "image": True}},
            "catalog": {"context_window": 8192, "prices": None},
        }
    )
    assert facts["abilities"] == {"tools": True, "image": True}
    assert sources == {"abilities.tools": "entry", "abilities.image": "measured", "context_window": "catalog"}
    assert facts["prices"] is None


def test_a_default_model_is_chosen_changed_and_removed() -> None:
    default = DefaultModel.begin(DefaultModel.Chosen, "chat", NOW, provider="lab", model="small")
    scenario = made(default).then(DefaultModel.Chosen, provider="lab", model="small")
    scenario.when(lambda it: it.change(NOW, provider="lab", model="small")).nothing()
    scenario.once(lambda it: it.change(NOW, provider="lab", model="large"), DefaultModel.Changed, model="large")
    scenario.when(lambda it: it.remove(NOW)).then(DefaultModel.Removed)
    scenario.when(lambda it: it.remove(NOW)).rejects("not_found", "type")
    scenario.when(lambda it: it.change(NOW, provider="lab", model="large")).then(DefaultModel.Changed)
