from __future__ import annotations

from datetime import timedelta
from typing import Any

from domain.access.api_key import ApiKey
from tests.domain.scenario import NOW, given, made

FIELDS: dict[str, Any] = {
    "name": "Site",
    "digest": "1" * 64,
    "hint": "a1B2",
    "permissions": ["chat"],
    "apps": ["app"],
    "datasets": [],
    "expires_at": None,
    "account": None,
}


def key() -> ApiKey:
    return ApiKey.begin(ApiKey.Created, "k-1", NOW, **FIELDS)


def replaced(key: ApiKey) -> None:
    key.replace(NOW, digest="2" * 64, hint="zZ", former_ends_at=NOW + timedelta(hours=1))


def test_is_created() -> None:
    made(key()).then(ApiKey.Created).whole(**FIELDS)


def test_another_key_takes_its_place_after_a_while() -> None:
    end = (NOW + timedelta(hours=1)).isoformat()
    given(key()).when(replaced).then(ApiKey.Replaced).whole(
        digest="2" * 64, hint="zZ", former="1" * 64, former_ends_at=end
    )
    given(key(), replaced).when(replaced).rejects("invalid", "digest")


def test_is_renamed_and_revoked() -> None:
    scenario = given(key()).when(lambda it: it.rename(NOW, name="Other")).then(ApiKey.Renamed, name="Other")
    assert scenario.when(lambda it: it.revoke(NOW)).then(ApiKey.Revoked).aggregate.deleted
