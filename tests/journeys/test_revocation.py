"""Keys, roles and accounts that are revoked while many send: nothing of theirs is accepted one second later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest

from adapters.jetstream.client import Client, NoOutcome, NotSent
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from tests.journeys.stack import Stack

SENDERS = 8
WITHIN_S = 1.0
"""Maximum time after a revocation at which a command may still be accepted, in seconds."""


class Office:
    """The operator of the journey's tenant: in the tenant, and in the house."""

    def __init__(self, stack: Stack) -> None:
        self.connection = stack.client.connection
        self.here = stack.client
        self.house = Client(stack.client.connection, HOUSE)

    async def done(self, name: str, /, **fields: Any) -> str:
        noun = name.partition(".")[0]
        client = self.house if noun in ("account", "tenant") else self.here
        outcome = await client.send(name, fields, wait=30)
        assert outcome["status"] == "accepted", outcome
        return str(outcome["ids"][noun])

    async def account(self) -> str:
        return await self.done("account.create", email=f"{new_id()}@example.com", name="Ada")

    async def member(self, role: str) -> str:
        """A new member of the tenant, which gets an owner first."""
        with suppress(AssertionError):
            await self.done("tenant.create", tenant=self.here.tenant, owner=await self.account(), name="T")
        account = await self.account()
        await self.done("tenant.add_member", tenant=self.here.tenant, account=account, role=role)
        return account

    async def key(self, **fields: Any) -> str:
        digest = sha256(new_id().encode()).hexdigest()
        scope = {"permissions": ["app.manage"], **fields}
        return await self.done("api_key.create", name="K", digest=digest, hint="abcd", **scope)


async def revoked_key(office: Office) -> tuple[str, Callable[[], Awaitable[str]]]:
    key = await office.key()
    return f"k_{key}", lambda: office.done("api_key.revoke", api_key=key)


async def lost_role(office: Office) -> tuple[str, Callable[[], Awaitable[str]]]:
    account, tenant = await office.member("editor"), office.here.tenant
    return f"a_{account}", lambda: office.done("tenant.set_role", tenant=tenant, account=account, role="viewer")


async def disabled_account(office: Office) -> tuple[str, Callable[[], Awaitable[str]]]:
    account = await office.member("editor")
    return f"a_{account}", lambda: office.done("account.disable", account=account)


async def key_of_a_disabled_account(office: Office) -> tuple[str, Callable[[], Awaitable[str]]]:
    account = await office.member("editor")
    key = await office.key(account=account)
    return f"k_{key}", lambda: office.done("account.disable", account=account)


@pytest.mark.parametrize("kind", [revoked_key, lost_role, disabled_account, key_of_a_disabled_account])
async def test_nothing_passes_a_second_after_a_revocation(
    headrace: Stack, kind: Callable[[Office], Awaitable[tuple[str, Callable[[], Awaitable[str]]]]]
) -> None:
    office = Office(headrace)
    actor, revoke = await kind(office)
    sender = Client(office.connection, office.here.tenant, actor)
    sent: list[tuple[float, str | None]] = []
    """Time of the sending of each command, and the code of its outcome; None where it was accepted."""
    ended = asyncio.Event()

    async def send() -> None:
        while not ended.is_set():
            at = time.monotonic()
            with suppress(NotSent, NoOutcome):
                outcome = await sender.send("app.create", {"name": "Under load"}, wait=30)
                sent.append((at, outcome.get("code")))

    senders = [asyncio.create_task(send()) for _ in range(SENDERS)]
    async with asyncio.timeout(60):
        while len(sent) < 3 * SENDERS:
            await asyncio.sleep(0.05)
        assert {code for _, code in sent} == {None}
        await revoke()
        revoked_at = time.monotonic()
        while sum(at > revoked_at + WITHIN_S for at, _ in sent) < SENDERS:
            await asyncio.sleep(0.05)
    ended.set()
    await asyncio.gather(*senders)
    assert {code for at, code in sent if at > revoked_at + WITHIN_S} == {"forbidden"}
