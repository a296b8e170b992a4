"""Secrets of end users for toolsets: each user's own, for one place, erased with the user."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.tools.user_secrets import UserSecrets
from handlers.ports.tools import ToolError
from handlers.tools.renew_secret import RenewSecret
from handlers.user_secrets import opened
from tests.handlers.desk import Desk
from tests.memory import Memory

URL = "https://crm.example/mcp"


@pytest.fixture
async def desk(memory: Memory, tenant: str) -> Desk:
    desk = Desk(memory, tenant)
    await registered(desk)
    return desk


async def registered(desk: Desk, url: str = URL, **auth: Any) -> None:
    auth = {"type": "bearer", "per_user": True, **auth}
    await desk.done("toolset.register", name="crm", kind="mcp", mcp={"url": url, "auth": auth})


async def secret_of(desk: Desk, user: str) -> str:
    return await opened(desk.repository, desk.keys, desk.tenant, "crm", await desk.person(user))


async def missing(desk: Desk, user: str) -> str:
    with pytest.raises(ToolError) as raised:
        await secret_of(desk, user)
    assert raised.value.code == "no_secret"
    return raised.value.reason


async def test_each_user_has_a_secret_of_their_own(desk: Desk) -> None:
    await desk.done("user_secret.set", toolset="crm", user="ada", secret="key-of-ada")
    await desk.done("user_secret.set", toolset="crm", user="bob", secret="key-of-bob")
    assert [await secret_of(desk, user) for user in ("ada", "bob")] == ["key-of-ada", "key-of-bob"]
    assert "send user_secret.set" in await missing(desk, "cy")
    await desk.done("user_secret.set", toolset="crm", user="ada", secret="newer-key-of-ada")
    assert await secret_of(desk, "ada") == "newer-key-of-ada"
    await desk.done("user_secret.remove", toolset="crm", user="ada")
    await missing(desk, "ada")
    assert await desk.fails("user_secret.remove", toolset="crm", user="ada") == ("not_found", "toolset")
    assert await desk.fails("user_secret.remove", toolset="crm", user="cy") == ("not_found", "toolset")
    events = [vars(event) for event in await desk.events("user_secret", await desk.person("ada"))]
    assert "key-of-ada" not in json.dumps(events, default=str)


async def test_a_secret_is_for_the_place_that_it_was_given_for(desk: Desk) -> None:
    await desk.done("user_secret.set", toolset="crm", user="ada", secret="key-of-ada")
    await registered(desk, "https://elsewhere.example/mcp")
    assert "at another place" in await missing(desk, "ada")
    await registered(desk)
    assert await secret_of(desk, "ada") == "key-of-ada"


async def test_a_toolset_with_one_secret_takes_none_of_users(desk: Desk) -> None:
    await registered(desk, per_user=False)
    assert await desk.fails("user_secret.set", toolset="crm", user="ada", secret="k") == ("invalid", "toolset")
    assert await desk.fails("user_secret.set", toolset="gone", user="ada", secret="k") == ("not_found", "toolset")
    assert await desk.fails("user_secret.set", toolset="crm", user="ada", secret="") == ("invalid", "secret")


@pytest.mark.parametrize(
    "fields",
    [
        {"url": URL, "auth": {"type": "none", "per_user": True}},
        {"url": URL, "auth": {"type": "bearer", "per_user": True, "user_header": "X-User"}},
        {"server": "files", "auth": {"type": "bearer", "per_user": True}},
    ],
)
async def test_secrets_of_users_need_a_server_that_is_sent_one(desk: Desk, fields: dict[str, Any]) -> None:
    code, _ = await desk.fails("toolset.register", name="crm", kind="mcp", mcp=fields)
    assert code == "invalid"


async def test_a_secret_is_erased_with_its_user(desk: Desk) -> None:
    await desk.done("user_secret.set", toolset="crm", user="ada", secret="key-of-ada")
    before = await desk.person("ada")
    await desk.done("end_user.erase", user="ada")
    with pytest.raises(ToolError, match="was erased"):
        await opened(desk.repository, desk.keys, desk.tenant, "crm", before)
    await desk.done("user_secret.set", toolset="crm", user="ada", secret="key-of-another")
    other = await desk.person("ada", erasures=1)
    assert other != before
    assert await opened(desk.repository, desk.keys, desk.tenant, "crm", other) == "key-of-another"


async def test_a_login_of_a_user_is_renewed(desk: Desk) -> None:
    await desk.done("user_secret.set", toolset="crm", user="ada", secret="old")
    renew, person = RenewSecret(desk.repository, desk.vault, desk.keys), await desk.person("ada")

    async def fetch(known: str) -> str:
        assert known == "old"
        return "new"

    assert await renew(desk.tenant, "crm", person, "old", fetch) == "new"
    assert await renew(desk.tenant, "crm", person, "old", fetch) == "new"  # it is there already
    assert await secret_of(desk, "ada") == "new"
    secrets = await desk.fold("user_secret", person)
    assert isinstance(secrets, UserSecrets)
    assert len(secrets.secrets) == 1
