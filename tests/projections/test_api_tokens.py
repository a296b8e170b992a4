from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from domain.access.api_key import ApiKey
from projections.api_tokens import api_tokens
from tests.projections.history import History

DIGEST = "ab" * 32


def created(history: History, **fields: Any) -> ApiKey:
    made = {
        "name": "Site",
        "digest": DIGEST,
        "hint": "wxyz",
        "permissions": ["chat", "read"],
        "apps": [],
        "datasets": [],
        "expires_at": None,
        "account": None,
    }
    key = ApiKey.begin(ApiKey.Created, "the-key", history.now, **made | fields)
    history.record(key)
    return key


def test_a_key_has_a_row_without_itself_or_its_digest() -> None:
    history = History()
    key = created(history, expires_at="2027-01-01T00:00:00+00:00", account="bot")
    [row] = history.rows(api_tokens)
    assert row == {
        "tenant_id": "default",
        "id": "the-key",
        "type": "tenant",
        "name": "Site",
        "hint": "wxyz",
        "permissions": ["chat", "read"],
        "apps": [],
        "datasets": [],
        "expires_at": datetime.fromisoformat("2027-01-01T00:00:00+00:00"),
        "account_id": "bot",
        "status": "active",
        "former_hint": None,
        "former_ends_at": None,
        "created_by": "ada",
        "created_at": key.created_on,
        "updated_at": key.created_on,
        "log_position": 1,
    }
    assert DIGEST not in str(row)


@pytest.mark.parametrize(
    ("apps", "datasets", "type"),
    [([], [], "tenant"), (["a"], [], "app"), ([], ["d"], "dataset"), (["a"], ["d"], "app")],
)
def test_the_type_says_what_it_is_for(apps: list[str], datasets: list[str], type: str) -> None:
    history = History()
    created(history, apps=apps, datasets=datasets)
    [row] = history.rows(api_tokens)
    assert (row["type"], row["apps"], row["datasets"]) == (type, apps, datasets)


def test_renaming_replacing_and_revoking_are_followed() -> None:
    history = History()
    key, ends_at = created(history), history.now + timedelta(days=1)
    key.rename(history.now, name="Shop")
    key.replace(history.now, digest="cd" * 32, hint="1234", former_ends_at=ends_at)
    history.record(key)
    [row] = history.rows(api_tokens)
    assert (row["name"], row["hint"], row["former_hint"], row["former_ends_at"]) == ("Shop", "1234", "wxyz", ends_at)
    key.revoke(history.now)
    at = history.record(key)
    [row] = history.rows(api_tokens)
    assert (row["status"], row["updated_at"]) == ("revoked", at)
