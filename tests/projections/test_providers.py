from __future__ import annotations

from domain.models.provider import Credential, Found, Provider
from projections.provider_credentials import provider_credentials
from projections.providers import providers
from tests.projections.history import History

KEY = Credential(name="default", weight=1, sealed_key="sealed", hint="1234")
SPARE = Credential(name="spare", weight=3, sealed_key="sealed", hint="")


def registered(history: History) -> Provider:
    provider = Provider.begin(
        Provider.Registered,
        "local",
        history.now,
        kind="openai",
        base_url="http://models.test/v1",
        credentials=[KEY],
    )
    history.record(provider)
    return provider


def test_given_a_provider_when_it_is_changed_and_removed_then_its_row_says_so_and_never_holds_the_key() -> None:
    history = History()
    provider = registered(history)
    (row,) = history.rows(providers)
    assert row == {
        "tenant_id": "default",
        "id": "local",
        "kind": "openai",
        "base_url": "http://models.test/v1",
        "credentials": ["default"],
        "has_key": True,
        "status": "active",
        "check_status": "none",
        "check_trace_id": None,
        "check_code": None,
        "check_reason": None,
        "checked_at": None,
        "checked_model": None,
        "models": None,
        "latency_ms": None,
        "limits": {},
        "created_by": "ada",
        "created_at": provider.created_on,
        "updated_at": provider.created_on,
        "log_position": 1,
    }
    provider.remove(history.now)
    history.record(provider)
    (row,) = history.rows(providers)
    assert (row["status"], row["has_key"]) == ("removed", False)

    provider.register(history.now, kind="ollama", base_url="http://other.test", credential=None)
    history.record(provider)
    (row,) = history.rows(providers)
    assert (row["status"], row["kind"], row["base_url"]) == ("active", "ollama", "http://other.test")
    assert (row["has_key"], row["credentials"]) == (False, [])
    assert (row["created_at"], row["updated_at"]) == (provider.created_on, provider.modified_on)


def test_each_credential_has_a_row_without_its_key() -> None:
    history = History()
    provider = registered(history)
    provider.add_credential(history.now, SPARE)
    at = history.record(provider)
    default, spare = history.rows(provider_credentials)
    assert spare == {
        "tenant_id": "default",
        "id": "local/spare",
        "provider_id": "local",
        "name": "spare",
        "weight": 3,
        "status": "unchecked",
        "hint": "",
        "created_by": "ada",
        "created_at": at,
        "updated_at": at,
        "log_position": 2,
    }
    assert (default["id"], default["hint"]) == ("local/default", "1234")
    assert "sealed" not in str(history.rows(provider_credentials))
    (row,) = history.rows(providers)
    assert row["credentials"] == ["default", "spare"]

    provider.add_credential(history.now, Credential(**SPARE | {"weight": 5}))
    provider.remove_credential(history.now, name="default")
    history.record(provider)
    (spare,) = history.rows(provider_credentials)
    assert (spare["id"], spare["weight"]) == ("local/spare", 5)
    provider.remove_credential(history.now, name="spare")
    history.record(provider)
    assert history.rows(provider_credentials) == []
    (row,) = history.rows(providers)
    assert not row["has_key"]


def test_a_provider_at_another_address_or_removed_has_no_former_credential() -> None:
    history = History()
    provider = registered(history)
    provider.register(history.now, kind="openai", base_url="http://other.test/v1", credential=SPARE)
    history.record(provider)
    (row,) = history.rows(provider_credentials)
    assert row["id"] == "local/spare"
    provider.remove(history.now)
    history.record(provider)
    assert history.rows(provider_credentials) == []


def test_a_check_is_in_the_row_of_its_provider_and_in_those_of_its_credentials() -> None:
    history = History()
    provider = registered(history)
    provider.request_check(history.now, check="c1", model=None)
    history.record(provider)
    (row,) = history.rows(providers)
    assert (row["check_status"], row["check_trace_id"]) == ("requested", history.correlation)
    found = Found(
        check="c1", code="unauthorized", reason="No.", model="small", models=None, latency_ms=None, limits={"x": 1}
    )
    provider.end_check(history.now, {"default": "unauthorized"}, **found)
    at = history.record(provider)
    (row,) = history.rows(providers)
    assert (row["check_status"], row["check_code"], row["check_reason"]) == ("failed", "unauthorized", "No.")
    assert (row["checked_at"], row["checked_model"], row["limits"]) == (at, "small", {"x": 1})
    (credential,) = history.rows(provider_credentials)
    assert credential["status"] == "unauthorized"

    provider.request_check(history.now, check="c2", model=None)
    history.record(provider)
    (row,) = history.rows(providers)
    assert (row["check_status"], row["check_code"], row["check_reason"]) == ("requested", None, None)
    found |= {"check": "c2", "code": None, "reason": None, "models": 2, "latency_ms": 1.5}
    provider.end_check(history.now, {"default": None}, **found)
    history.record(provider)
    (row,) = history.rows(providers)
    assert (row["check_status"], row["models"], row["latency_ms"]) == ("ok", 2, 1.5)
    (credential,) = history.rows(provider_credentials)
    assert credential["status"] == "works"


def test_a_removed_provider_waits_for_no_check() -> None:
    history = History()
    provider = registered(history)
    provider.request_check(history.now, check="c1", model=None)
    provider.remove(history.now)
    history.record(provider)
    (row,) = history.rows(providers)
    assert (row["status"], row["check_status"]) == ("removed", "none")
