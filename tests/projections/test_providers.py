from __future__ import annotations

from domain.models.provider import Provider
from projections.providers import providers
from tests.projections.history import History


def test_given_a_provider_when_it_is_changed_and_removed_then_its_row_says_so_and_never_holds_the_key() -> None:
    history = History()
    provider = Provider.begin(
        Provider.Registered, "local", history.now, base_url="http://models.test/v1", sealed_key="sealed"
    )
    history.record(provider)
    (row,) = history.rows(providers)
    assert row == {
        "tenant_id": "default",
        "id": "local",
        "base_url": "http://models.test/v1",
        "has_key": True,
        "status": "active",
        "created_by": "ada",
        "created_at": provider.created_on,
        "updated_at": provider.created_on,
        "log_position": 1,
    }
    provider.remove(history.now)
    history.record(provider)
    (row,) = history.rows(providers)
    assert (row["status"], row["has_key"]) == ("removed", False)

    provider.change(history.now, base_url="http://other.test/v1", sealed_key="")
    history.record(provider)
    (row,) = history.rows(providers)
    assert (row["status"], row["base_url"], row["has_key"]) == ("active", "http://other.test/v1", False)
    assert (row["created_at"], row["updated_at"]) == (provider.created_on, provider.modified_on)
