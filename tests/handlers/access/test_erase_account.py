from __future__ import annotations

from domain.access.end_user import EndUser
from domain.access.tenant import HOUSE
from domain.log import Subject
from handlers.access.erase_account import EraseAccount
from tests.handlers.desk import Desk
from tests.memory import Memory


async def test_the_person_of_an_account_is_erased_as_an_end_user_is(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    account = await desk.done("account.create", email="ada@example.com", name="Ada")
    await desk.done("account.erase", account=account)
    erase = EraseAccount(desk.repository)
    for commit in await desk.commits("account", account) * 2:
        await erase(commit)
    [erased] = await desk.store.load(Subject(HOUSE, "end_user", account))
    assert [type(event) for event in erased.events] == [EndUser.Erased]
    assert desk.keys.get(HOUSE, account).erased


async def test_a_service_is_no_person(memory: Memory, tenant: str) -> None:
    desk = Desk(memory, tenant)
    account = await desk.done("account.create_service", name="Billing")
    await desk.done("account.erase", account=account)
    for commit in await desk.commits("account", account):
        await EraseAccount(desk.repository)(commit)
    assert await desk.store.load(Subject(HOUSE, "end_user", account)) == []
