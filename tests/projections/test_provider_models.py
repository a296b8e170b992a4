from __future__ import annotations

from datetime import datetime

from domain.models.default_model import DefaultModel
from domain.models.model import Model, Prices, begun
from domain.models.model_call import ModelCall
from projections.engine.values import BUILT_IN
from projections.model_calls import model_calls
from projections.provider_models import provider_models
from projections.tenant_default_models import tenant_default_models
from tests.projections.history import TOKENS, History

PRICES = Prices(input=4.0, output=8.0, cached=1.0, cache_write=None)


def enter(model: Model, at: datetime, **fields: object) -> None:
    none: dict[str, object] = {"context_window": None, "max_output": None, "prices": None, "rpm": None, "tpm": None}
    model.set_entry(at, **{**none, "type": "chat", "abilities": {}, **fields})  # type: ignore[typeddict-item]


def call(history: History, provider: str, model: str) -> ModelCall:
    made = ModelCall.begin(
        ModelCall.Requested,
        "c1",
        history.now,
        kind="chat",
        provider=provider,
        model=model,
        cause_noun="message",
        cause_id="m1",
        request={},
    )
    history.record(made)
    return made


def complete(history: History, made: ModelCall) -> None:
    made.complete(history.now, response="", finish_reason=None, usage=TOKENS, first_token_ms=None, duration_ms=1.0)
    history.record(made)


def test_each_fact_of_a_model_is_the_first_that_is_known_and_its_source_is_named() -> None:
    history = History()
    model = begun(None, "openai", "gpt-4o", history.now)
    enter(model, history.now, max_output=2048, abilities={"image": True}, rpm=60)
    at = history.record(model)
    (row,) = history.rows(provider_models)
    assert (row["provider_id"], row["model"], row["type"]) == ("openai", "gpt-4o", "chat")
    assert (row["context_window"], row["max_output"], row["rpm"], row["tpm"]) == (128_000, 2048, 60, None)
    assert row["prices"] == {"input": 2.5, "output": 10.0, "cached": 1.25, "cache_write": None}
    assert row["abilities"] == {"image": True}
    assert row["sources"] == {
        "type": "entry",
        "max_output": "entry",
        "rpm": "entry",
        "abilities.image": "entry",
        "context_window": "catalog",
        "prices": "catalog",
    }
    assert (row["price_version"], row["updated_at"]) == (BUILT_IN.prices.version, at)
    assert (row["check_id"], row["checked_at"], row["measured"]) == (None, None, None)

    model.take_check(history.now, check="check-1", abilities={"image": False, "tools": False}, context_window=4096)
    at = history.record(model)
    (row,) = history.rows(provider_models)
    assert row["abilities"] == {"image": True, "tools": False}
    assert (row["context_window"], row["sources"]["context_window"]) == (4096, "measured")
    assert (row["check_id"], row["checked_at"]) == ("check-1", at)

    model.remove_entry(history.now)
    history.record(model)
    (row,) = history.rows(provider_models)
    assert (row["abilities"], row["entry"], row["rpm"]) == ({"image": False, "tools": False}, None, None)


def test_the_catalogue_is_asked_with_the_server_that_lists_the_model() -> None:
    history = History()
    model = begun(None, "mine", "gpt-4o", history.now)
    model.take_listing(history.now, server="api.openai.com:443", type=None, context_window=None, max_output=None)
    history.record(model)
    other = begun(None, "mine", "gpt-4o-mini", history.now)
    other.take_listing(history.now, server="127.0.0.1:8000", type="chat", context_window=4096, max_output=None)
    history.record(other)
    rows = {row["model"]: row for row in history.rows(provider_models)}
    assert rows["gpt-4o"]["context_window"] == 128_000
    assert rows["gpt-4o"]["prices"]["input"] == 2.5
    assert (rows["gpt-4o-mini"]["context_window"], rows["gpt-4o-mini"]["prices"]) == (4096, None)
    assert rows["gpt-4o-mini"]["sources"] == {"type": "listed", "context_window": "listed"}


def test_a_call_is_priced_by_the_entry_that_its_model_had_when_it_was_made() -> None:
    history = History()
    model = begun(None, "openai", "gpt-4o", history.now)
    enter(model, history.now, prices=PRICES)
    history.record(model)
    made = call(history, "openai", "gpt-4o")
    model.remove_entry(history.now)
    history.record(model)
    complete(history, made)
    (row,) = history.rows(model_calls)
    assert (row["entry_prices"], row["price_source"]) == (PRICES, "entry")
    assert row["cost"] == ((90 - 64) * 4.0 + 64 * 1.0 + 12 * 8.0) / 1e6
    assert row["price_version"] == BUILT_IN.prices.version


def test_a_call_without_an_entry_names_the_list_and_one_of_an_unknown_model_nothing() -> None:
    for provider, source in (("openai", "list"), ("lab", None), ("builtin", "builtin")):
        history = History()
        complete(history, call(history, provider, "gpt-4o"))
        (row,) = history.rows(model_calls)
        assert (row["entry_prices"], row["price_source"]) == (None, source)
        assert (row["cost"] is None) == (source is None)


def test_a_default_model_has_a_row_until_it_is_removed() -> None:
    history = History()
    default = DefaultModel.begin(DefaultModel.Chosen, "chat", history.now, provider="lab", model="small")
    history.record(default)
    default.change(history.now, provider="lab", model="large")
    at = history.record(default)
    (row,) = history.rows(tenant_default_models)
    assert row == {
        "tenant_id": "default",
        "id": "chat",
        "provider_id": "lab",
        "model": "large",
        "created_at": default.created_on,
        "updated_at": at,
        "log_position": 2,
    }
    default.remove(history.now)
    history.record(default)
    assert history.rows(tenant_default_models) == []
    default.change(history.now, provider="lab", model="small")
    history.record(default)
    (row,) = history.rows(tenant_default_models)
    assert row["model"] == "small"
