from __future__ import annotations

from typing import Any

import pytest
from nats.aio.client import Client

from adapters.jetstream import sessions as module
from adapters.jetstream.sessions import Sessions
from domain.aggregate import new_id

ADA, BO = "a_00000000-0000-4000-8000-00000000000a", "a_00000000-0000-4000-8000-00000000000b"


@pytest.fixture
def sessions(nc: Client) -> Sessions:
    return Sessions(nc)


async def test_a_session_is_found_by_its_secret_and_says_whose_it_is(sessions: Sessions) -> None:
    secret = await sessions.begin("token", "192.0.2.1", "Firefox", actor=ADA, since="2026-01-01T00:00:00+00:00")
    found = await sessions.find(secret)
    assert found
    assert (found.actor, found.account, found.address, found.browser) == (ADA, ADA[2:], "192.0.2.1", "Firefox")
    assert found.since == "2026-01-01T00:00:00+00:00"
    assert secret.partition(".")[0] not in found.id
    operator = await sessions.find(await sessions.begin("token"))
    assert operator
    assert (operator.actor, operator.account) == ("anon", "")


async def test_a_secret_opens_no_session_of_another_actor(sessions: Sessions) -> None:
    secret = await sessions.begin("token", actor=ADA)
    random = secret.partition(".")[0]
    for forged in (f"{random}.{BO}", f"{random}.anon", f"{random}.*", f"{random}.>", random, f"{random}.{ADA}.x", ""):
        assert await sessions.find(forged) is None, forged
    assert await sessions.find(secret)


async def test_those_of_an_actor_are_listed_and_ended(sessions: Sessions) -> None:
    one, other = (f"a_{new_id()}" for _ in range(2))
    ids = [(await found(sessions, actor=actor)).id for actor in (one, other, one)]
    assert [each.id for each in await sessions.open(one)] == [ids[0], ids[2]]
    assert {*ids} <= {each.id for each in await sessions.open()}
    await sessions.end_all(one, but=[ids[2]])
    assert [each.id for each in await sessions.open(one)] == [ids[2]]
    assert [each.id for each in await sessions.open(other)] == [ids[1]]


async def test_a_sign_out_ends_those_that_began_before_it(sessions: Sessions) -> None:
    """However late it is done: a session that began after it goes on."""
    actor = f"a_{new_id()}"
    first, later = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    never = await found(sessions, actor=actor)
    old, new = [await found(sessions, actor=actor, since=since) for since in (first, later)]
    await sessions.end_all(actor, before=later)
    assert [each.id for each in await sessions.open(actor)] == [new.id]
    assert never.id != old.id


async def found(sessions: Sessions, **fields: Any) -> module.Session:
    session = await sessions.find(await sessions.begin("token", **fields))
    assert session
    return session


async def test_the_last_use_is_noted_at_times_and_brings_no_ended_session_back(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await sessions.begin("token", actor=ADA)
    first = await sessions.find(secret)
    again = await sessions.find(secret)
    assert first
    assert again
    assert again.used_at == first.used_at
    monkeypatch.setattr(module, "USED_S", 0.0)
    used = await sessions.find(secret)
    noted = await sessions.find(secret)
    assert used
    assert noted
    assert first.used_at < used.used_at <= noted.used_at
    assert noted.began_at == first.began_at
    read = sessions._get

    async def ended_meanwhile(key: str) -> Any:
        entry = await read(key)
        await sessions.end(first.id)
        return entry

    monkeypatch.setattr(sessions, "_get", ended_meanwhile)
    await sessions.find(secret)
    monkeypatch.setattr(sessions, "_get", read)
    assert await sessions.find(secret) is None
